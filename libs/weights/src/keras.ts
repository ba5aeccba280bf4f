import { asConvoyError, ConvoyError } from '@convoy/errors'
import { parameterLayout } from '@convoy/model'
import { Dataset, File, Group, Module, ready } from 'h5wasm/node'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { unpack, type Members } from './archive.ts'
import {
  byNumber,
  groupTensors,
  LARGEST_FILE,
  NETWORK_KEY,
  parseNetwork,
  unreadable,
  type Network,
  type StoredLayer,
  type StoredTensor,
  type WeightsFile,
} from './file.ts'
import { toFloat32, type FloatKind } from './numbers.ts'
import { describe, topology } from './topology.ts'

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
export async function readKerasArchive(members: Members, file: string): Promise<WeightsFile> {
  const member = members.get(WEIGHTS_MEMBER)
  if (!member) {
    const numpy = [...members.keys()].some((name) => name.endsWith('.npy'))
    throw unreadable(
      file,
      numpy
        ? "it is NumPy's .npz"
        : `it is an archive without ${WEIGHTS_MEMBER} or data.pkl, so neither of Keras nor of PyTorch`,
    )
  }
  // The HDF5 library reads files only.
  const folder = await mkdtemp(path.join(tmpdir(), 'convoy-keras-'))
  const inside = path.join(folder, WEIGHTS_MEMBER)
  try {
    await writeFile(inside, await unpack(member, LARGEST_FILE, file))
    const config = members.get('config.json')
    const described = config
      ? describe(parseJson(Buffer.from(await unpack(config, LARGEST_CONFIG, file)).toString('utf8')))
      : {}
    return { ...(await readKeras(inside, file)), ...described, format: 'Keras 3, save' }
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** A config's bytes at most. */
const LARGEST_CONFIG = 16 * 1024 * 1024

function parseJson(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text)
  } catch {
    return undefined
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
  const known = { ...describe(parseJson(text(root, 'model_config'))), ...(network ? { network } : {}) }

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
  if (stored instanceof Group)
    return { format: 'Keras 3, save_weights', layers: readNested(stored, '', file), turned: 'no', ...known }
  throw unreadable(file, 'this HDF5 file is not laid out as Keras does it')
}

/** Keras 3's groups: each layer has its numbers in `vars`, and the layers of a model within it in `layers`. */
function readNested(group: Group, prefix: string, file: string): StoredLayer[] {
  return group
    .keys()
    .sort(byNumber)
    .flatMap((key): StoredLayer[] => {
      const layer = group.get(key)
      if (!(layer instanceof Group)) return []
      const name = `${prefix}${key}`
      const vars = layer.get('vars')
      const tensors =
        vars instanceof Group
          ? vars
              .keys()
              .sort(byNumber)
              .map((variable) => readTensor(vars, variable, `${name}/${variable}`, file))
          : []
      const inner = layer.get('layers') ?? layer.get('_layer_checkpoint_dependencies')
      return [
        ...(tensors.length > 0 ? [{ name, tensors }] : []),
        ...(inner instanceof Group ? readNested(inner, `${name}/`, file) : []),
      ]
    })
}

function readLayer(base: Group, name: string, file: string): StoredLayer[] {
  const group = base.get(name)
  if (!(group instanceof Group)) throw unreadable(file, `the layer ${name} is listed but not there`)
  // Before Keras 1 the datasets were only counted.
  const listed = names(group, 'weight_names') ?? group.keys().filter((key) => key.startsWith('param_'))
  if (listed.length === 0) return []
  const tensors = listed.map((weight) => readTensor(group, weight, weight, file))
  // A model in a model, as Keras's multi_gpu_model makes it, is one group with the weights of all of its layers.
  const inner = groupTensors(tensors)
  if (inner.length > 1 && listed.every((weight) => weight.includes('/'))) return inner
  return [{ name, tensors }]
}

/** The kinds of HDF5's floating-point numbers, by their size; Keras keeps bfloat16 as two bytes without a type. */
function kindOf({ metadata, dtype }: Dataset): { kind: string; float: FloatKind | undefined } {
  const float = ({ 2: 'float16', 4: 'float32', 8: 'float64' } as const)[metadata.size]
  if (metadata.type === FLOAT && float) return { kind: float, float }
  if (metadata.type === OPAQUE && metadata.size === 2) return { kind: 'bfloat16', float: 'bfloat16' }
  const whole = `${metadata.signed ? 'int' : 'uint'}${8 * metadata.size}`
  if (metadata.type === WHOLE) return { kind: whole, float: undefined }
  return { kind: typeof dtype === 'string' ? dtype : 'of a compound or other type', float: undefined }
}

/** HDF5's classes of types (H5T_class_t). */
const [WHOLE, FLOAT, OPAQUE] = [0, 1, 5]

function readTensor(group: Group, at: string, name: string, file: string): StoredTensor {
  const dataset = group.get(at)
  if (!(dataset instanceof Dataset)) throw unreadable(file, `the weight ${name} is listed but not there`)
  const { kind, float } = kindOf(dataset)
  const shape = dataset.shape ?? []
  if (!float) {
    if (dataset.metadata.type === WHOLE) return { name, shape, kind, values: undefined }
    throw unreadable(file, `${name} is ${kind}, which no weights are`)
  }
  // Numbers that are packed, or only said to be there, may be more than the file has bytes.
  const size = dataset.metadata.size * dataset.metadata.total_size
  if (!(size <= LARGEST_FILE)) throw unreadable(file, `${name} would be ${size} bytes unpacked`)
  return { name, shape, kind, values: toFloat32(rawBytes(dataset, size, name, file), float) }
}

/** A dataset's bytes, little-endian; the library's own reading knows no numbers of two bytes. */
function rawBytes(dataset: Dataset, size: number, name: string, file: string): Uint8Array {
  const { type, littleEndian, size: width } = dataset.metadata
  // What has no type has no order either, which the library calls big-endian: Keras's bfloat16 lies as the machine had it.
  const swapped = type === FLOAT && !littleEndian
  const place = Module._malloc(Math.max(1, size))
  if (place === 0) throw unreadable(file, `there is no memory for the ${size} bytes of ${name}`)
  try {
    Module.get_dataset_data(dataset.file_id, dataset.path, null, null, null, BigInt(place))
    const bytes = Module.HEAPU8.slice(place, place + size)
    if (swapped) for (let i = 0; i < size; i += width) bytes.subarray(i, i + width).reverse()
    return bytes
  } catch (error) {
    const filter = dataset.filters.find(({ id }) => !OWN_FILTERS.has(id))
    if (!filter) throw error
    throw unreadable(
      file,
      `${name} is packed with the filter ${filter.name || filter.id}, which is not part of HDF5`,
      error,
      'Repack it: `h5repack -f GZIP=4 FILE NEW`.',
    )
  } finally {
    Module._free(place)
  }
}

/** Filters that every HDF5 library has: deflate, shuffle, fletcher32. (H5Zpublic.h) */
const OWN_FILTERS = new Set([1, 2, 3])

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
