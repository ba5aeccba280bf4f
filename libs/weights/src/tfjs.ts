import { parameterLayout } from '@convoy/model'
import { z } from 'zod'
import {
  groupTensors,
  NETWORK_KEY,
  parseNetwork,
  notFloat32,
  unreadable,
  type Network,
  type StoredTensor,
  type WeightsFile,
} from './file.ts'
import { topology } from './topology.ts'

/** TensorFlow.js's layers model: `model.json` beside its weights, cut into shards of 4 MB. */

const SHARD = 4 * 1024 * 1024

const manifestSpec = z.object({
  format: z.string().optional(),
  weightsManifest: z.array(
    z.object({
      paths: z.array(z.string()),
      weights: z.array(
        z.object({
          name: z.string(),
          shape: z.array(z.int().min(0)),
          dtype: z.string(),
          quantization: z.unknown().optional(),
        }),
      ),
    }),
  ),
  userDefinedMetadata: z.record(z.string(), z.unknown()).optional(),
})

/**
 * Reads a model.json and its shards. Throws E_WEIGHTS_FILE.
 *
 * @param readShard Gives the bytes of a shard, by its name beside the model.json; what it throws is said of the file.
 */
export async function readTfjs(
  text: string,
  file: string,
  readShard: (name: string) => Promise<Uint8Array>,
): Promise<WeightsFile> {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw unreadable(file, 'it is not JSON', error)
  }
  const parsed = manifestSpec.safeParse(json)
  if (!parsed.success) throw unreadable(file, 'it has no weightsManifest of TensorFlow.js')
  const tensors: StoredTensor[] = []
  for (const { paths, weights } of parsed.data.weightsManifest) {
    const shards = await Promise.all(
      paths.map((shard) => {
        // A shard is a neighbour: a model may not name files elsewhere.
        if (/[/\\]/.test(shard)) throw unreadable(file, `the shard ${shard} is not beside it`)
        return readShard(shard).catch((error: Error) => {
          throw unreadable(
            file,
            `its shard cannot be read: ${error.message}`,
            error,
            'Put every .bin file that it names beside it.',
          )
        })
      }),
    )
    const bytes = new Uint8Array(shards.reduce((length, shard) => length + shard.length, 0))
    let at = 0
    for (const shard of shards) {
      bytes.set(shard, at)
      at += shard.length
    }
    at = 0
    for (const { name, shape, dtype, quantization } of weights) {
      if (dtype !== 'float32' || quantization !== undefined)
        throw notFloat32(file, name, quantization ? 'quantized' : dtype)
      const end = at + 4 * shape.reduce((product, n) => product * n, 1)
      if (end > bytes.length) throw unreadable(file, `${name} is cut off`)
      tensors.push({ name, shape, values: new Float32Array(bytes.slice(at, end).buffer) })
      at = end
    }
    if (at !== bytes.length) throw unreadable(file, 'its shards are longer than its weights')
  }
  const network = parseNetwork(parsed.data.userDefinedMetadata?.[NETWORK_KEY], file)
  return {
    format: `TensorFlow.js ${parsed.data.format ?? 'model'}`,
    layers: groupTensors(tensors),
    turned: 'no',
    ...(network ? { network } : {}),
  }
}

/** The files of a model.json called `name`, by their names. Throws E_WEIGHTS_FIT where Keras has no such layer. */
export function encodeTfjs(
  name: string,
  parameters: Float32Array,
  network: Network,
): Map<string, Uint8Array> {
  const bytes = new Uint8Array(parameters.buffer, parameters.byteOffset, parameters.byteLength)
  const count = Math.ceil(bytes.length / SHARD)
  const base = name.replace(/\.json$/, '')
  const paths = Array.from({ length: count }, (_, i) => `${base}.shard${i + 1}of${count}.bin`)
  const weights = parameterLayout(network.model).views.map((view) => ({
    name: view.name,
    shape: view.shape,
    dtype: 'float32',
  }))
  const json = {
    format: 'layers-model',
    generatedBy: 'Convoy',
    convertedBy: null,
    modelTopology: {
      keras_version: '2.15.0',
      backend: 'tensorflow',
      model_config: topology(network.model),
    },
    weightsManifest: [{ paths, weights }],
    userDefinedMetadata: { [NETWORK_KEY]: network },
  }
  return new Map([
    ...paths.map((shard, i) => [shard, bytes.subarray(i * SHARD, (i + 1) * SHARD)] as const),
    [name, new TextEncoder().encode(JSON.stringify(json))],
  ])
}
