import { asConvoyError, ConvoyError } from '@convoy/errors'
import { parameterLayout } from '@convoy/model'
import { Dataset, File, Group, Module, ready } from 'h5wasm/node'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { buffer } from 'node:stream/consumers'
import { openPromise } from 'yauzl'
import {
  byNumber,
  NETWORK_KEY,
  parseNetwork,
  notFloat32,
  unreadable,
  type Network,
  type StoredLayer,
  type StoredTensor,
  type WeightsFile,
} from './file.ts'
import { topology } from './topology.ts'

/**
 * Keras's HDF5 files.
 *
 * - Before Keras 1: attribute `nb_layers`; groups `layer_0`, … with datasets `param_0`, ….
 * - Keras 1 and 2: attribute `layer_names`; a group a layer, whose attribute `weight_names` names its datasets
 *   (`conv_W`, `conv_b` in Keras 1, `conv/kernel:0`, `conv/bias:0` in Keras 2). `save_weights` puts that at the root,
 *   `save` under `model_weights`, beside the attribute `model_config`. Keras 3 does so too where a name ends in `.h5`.
 * - Keras 3's `save_weights`: groups `layers/conv2d`, `layers/conv2d_1`, …, each with datasets `vars/0`, `vars/1`. So does
 *   Keras 2 from 2.12 where a name ends in `.weights.h5`; its first versions call the group
 *   `_layer_checkpoint_dependencies`. `save` to `.keras` puts that file into an archive, as `model.weights.h5`.
 *
 * Kernels are HWIO (TensorFlow) or OIHW (Theano, in Keras 1); a file of the Theano backend has them turned by 180°.
 */

/** An attribute as text; Keras writes them with a length, without, and padded. */
function text(group: Group, name: string): string | undefined {
  const value = group.attrs[name]?.value
  return typeof value === 'string' ? value.replace(/\0+$/, '') : undefined
}

/** An attribute that lists names. Keras cuts lists beyond 64 KB into `name0`, `name1`, …. */
function names(group: Group, name: string): string[] | undefined {
  const { attrs } = group
  const parts = attrs[name]
    ? [name]
    : Object.keys(attrs).filter((key) => new RegExp(`^${name}\\d+$`).test(key))
  if (parts.length === 0) return undefined
  return parts.sort(byNumber).flatMap((part) => {
    const { value, shape } = attrs[part]
    // Keras 3 writes an empty list as one of numbers.
    if (shape?.includes(0)) return []
    return (Array.isArray(value) ? value : [value]).map((entry) => String(entry).replace(/\0+$/, ''))
  })
}

/**
 * Reads an HDF5 file of Keras. Throws E_WEIGHTS_FILE.
 *
 * @param name What errors call it.
 */
export async function readKeras(file: string, name = file): Promise<WeightsFile> {
  await ready
  // HDF5's errors become exceptions instead of pages on standard error.
  Module.activate_throwing_error_handler()
  let open: File | undefined
  try {
    open = new File(file, 'r')
    return readFile(open, name)
  } catch (error) {
    if (error instanceof ConvoyError) throw error
    throw unreadable(name, `HDF5 cannot read it: ${reason(error)}`, error)
  } finally {
    if (open && open.file_id >= 0n) open.close()
  }
}

/** The member of a `.keras` archive that holds its weights. */
const WEIGHTS_MEMBER = 'model.weights.h5'

/** Reads a `.keras` archive: the HDF5 file in it. Throws E_WEIGHTS_FILE. */
export async function readKerasArchive(file: string): Promise<WeightsFile> {
  // The HDF5 library reads files only.
  const folder = await mkdtemp(path.join(tmpdir(), 'convoy-keras-'))
  const inside = path.join(folder, WEIGHTS_MEMBER)
  try {
    const zip = await openPromise(file)
    let found = false
    for await (const entry of zip.eachEntry()) {
      if (entry.fileName !== WEIGHTS_MEMBER) continue
      await writeFile(inside, await buffer(await zip.openReadStreamPromise(entry)))
      found = true
    }
    if (!found) throw unreadable(file, `it is an archive without ${WEIGHTS_MEMBER}, so not one of Keras`)
    return { ...(await readKeras(inside, file)), format: 'Keras 3, save' }
  } catch (error) {
    if (error instanceof ConvoyError) throw error
    throw unreadable(file, `it cannot be unpacked: ${(error as Error).message}`, error)
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** The innermost of HDF5's stacked messages. */
function reason(error: unknown): string {
  const lines = asConvoyError(error)
    .message.split('\n')
    .filter((line) => line.trim() !== '')
  return (lines.at(-1) ?? 'no reason given').trim().slice(0, 200)
}

function readFile(root: File, file: string): WeightsFile {
  const network = parseNetwork(text(root, NETWORK_KEY), file)
  const nested = root.get('model_weights')
  const base: Group = nested instanceof Group ? nested : root
  const saved = base === root ? 'save_weights' : 'save'
  const version = text(base, 'keras_version') ?? text(root, 'keras_version')
  const turned = (text(base, 'backend') ?? text(root, 'backend')) === 'theano' ? 'yes' : undefined
  const known = network ? { network } : {}

  const order = names(base, 'layer_names')
  if (order) {
    const layers = order.flatMap((name) => readLayer(base, name, file))
    const one = version?.startsWith('1') ?? layers.some(({ tensors }) => /_W(_\d+)?$/.test(tensors[0].name))
    const generation = one ? 'Keras 1' : `Keras ${version?.split('.')[0] ?? '2'}`
    return {
      format: `${generation}, ${saved}`,
      layers,
      turned: turned ?? (one ? 'oihw' : 'no'),
      ...known,
    }
  }
  const count = base.attrs['nb_layers']?.value
  if (count !== undefined && count !== null) {
    const layers = Array.from({ length: Number(count) }, (_, i) => `layer_${i}`).flatMap((name) =>
      readLayer(base, name, file),
    )
    return { format: 'Keras before 1.0', layers, turned: turned ?? 'oihw', ...known }
  }
  const stored = root.get('layers') ?? root.get('_layer_checkpoint_dependencies')
  if (stored instanceof Group) {
    const layers = stored
      .keys()
      .sort(byNumber)
      .flatMap((name) => {
        const vars = stored.get(`${name}/vars`)
        if (!(vars instanceof Group)) return []
        const tensors = vars
          .keys()
          .sort(byNumber)
          .map((key) => readTensor(vars, key, `${name}/${key}`, file))
        return tensors.length > 0 ? [{ name, tensors }] : []
      })
    return { format: 'Keras 3, save_weights', layers, turned: 'no', ...known }
  }
  throw unreadable(file, 'this HDF5 file is not laid out as Keras does it')
}

function readLayer(base: Group, name: string, file: string): StoredLayer[] {
  const group = base.get(name)
  if (!(group instanceof Group)) throw unreadable(file, `the layer ${name} is listed but not there`)
  // Before Keras 1 the datasets were only counted.
  const listed = names(group, 'weight_names') ?? group.keys().filter((key) => key.startsWith('param_'))
  if (listed.length === 0) return []
  return [{ name, tensors: listed.map((weight) => readTensor(group, weight, weight, file)) }]
}

function readTensor(group: Group, at: string, name: string, file: string): StoredTensor {
  const dataset = group.get(at)
  if (!(dataset instanceof Dataset)) throw unreadable(file, `the weight ${name} is listed but not there`)
  const { value, shape } = dataset
  if (!(value instanceof Float32Array)) {
    throw notFloat32(file, name, JSON.stringify(dataset.dtype))
  }
  return { name, shape: shape ?? [], values: value.slice() }
}

/**
 * Writes an HDF5 file: as Keras 3's `save_weights` where the name ends in `.weights.h5`, else as Keras 2's `save`, which
 * Keras 3 loads too. Throws E_WEIGHTS_FIT where Keras has no such layer, and E_WEIGHTS_FILE.
 */
export async function writeKeras(file: string, parameters: Float32Array, network: Network): Promise<void> {
  const { model } = network
  const weightsOnly = file.endsWith('.weights.h5')
  const config = weightsOnly ? undefined : JSON.stringify(topology(model))
  await ready
  Module.activate_throwing_error_handler()
  let root: File | undefined
  try {
    root = new File(file, 'w')
    root.create_attribute(NETWORK_KEY, JSON.stringify(network))
    const { views } = parameterLayout(model)
    const write = (group: Group, name: string, index: number) => {
      const { shape, offset, size } = views[index]
      group.create_dataset({
        name,
        data: parameters.subarray(offset, offset + size),
        shape: [...shape],
        dtype: '<f',
      })
    }
    if (config === undefined) {
      // Keras 3 counts layers by their kind and does not ask for names.
      // Keras 2 wants to see that the network itself has no weights; Keras 3 does not mind.
      root.create_group('vars')
      const layers = root.create_group('layers')
      for (let i = 0; i < views.length; i += 2) {
        const vars = layers.create_group(i === 0 ? 'conv2d' : `conv2d_${i / 2}`).create_group('vars')
        write(vars, '0', i)
        write(vars, '1', i + 1)
      }
    } else {
      root.create_attribute('keras_version', '2.15.0')
      root.create_attribute('backend', 'tensorflow')
      root.create_attribute('model_config', config)
      const base = root.create_group('model_weights')
      base.create_attribute('keras_version', '2.15.0')
      base.create_attribute('backend', 'tensorflow')
      // Keras takes the layers without weights as listed too, but does not need them.
      const order = views
        .filter(({ role }) => role === 'kernel')
        .map(({ name }) => name.replace(/\/kernel$/, ''))
      base.create_attribute('layer_names', order)
      order.forEach((name, i) => {
        const group = base.create_group(name)
        group.create_attribute('weight_names', [`${name}/kernel:0`, `${name}/bias:0`])
        const inner = group.create_group(name)
        write(inner, 'kernel:0', 2 * i)
        write(inner, 'bias:0', 2 * i + 1)
      })
    }
  } catch (error) {
    throw unreadable(file, `HDF5 cannot write it: ${reason(error)}`, error)
  } finally {
    if (root && root.file_id >= 0n) root.close()
  }
}
