import { parameterLayout } from '@convoy/model'
import { z } from 'zod'
import { toFloat32 } from './numbers.ts'
import {
  groupTensors,
  NETWORK_KEY,
  parseNetwork,
  unreadable,
  type Network,
  type StoredTensor,
  type WeightsFile,
} from './file.ts'
import { describe, topology } from './topology.ts'

/** TensorFlow.js's layers model: `model.json` beside its weights, cut into shards of 4 MB. */

const SHARD = 4 * 1024 * 1024

interface Quantization {
  readonly dtype: 'uint8' | 'uint16' | 'float16'
  readonly scale?: number | undefined
  readonly min?: number | undefined
}

/** Bytes of one number of a manifest. */
const widths: Record<string, number> = { float32: 4, int32: 4, uint16: 2, float16: 2, uint8: 1, bool: 1 }

/** A tensor's numbers as TensorFlow.js has them (its io_utils.ts): quantized ones are `number · scale + min`, rounded to float32. */
function valuesOf(bytes: Uint8Array, dtype: string, quantization?: Quantization): Float32Array | undefined {
  if (dtype !== 'float32') return undefined
  if (!quantization) return toFloat32(bytes, 'float32')
  const { dtype: small, scale = 1, min = 0 } = quantization
  if (small === 'float16') return toFloat32(bytes, 'float16')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const numberAt = (i: number) => (small === 'uint8' ? view.getUint8(i) : view.getUint16(2 * i, true))
  return Float32Array.from({ length: bytes.length / widths[small] }, (_, i) => numberAt(i) * scale + min)
}

const manifestSpec = z.object({
  format: z.string().optional(),
  modelTopology: z.unknown().optional(),
  weightsManifest: z.array(
    z.object({
      paths: z.array(z.string()),
      weights: z.array(
        z.object({
          name: z.string(),
          shape: z.array(z.int().min(0)),
          dtype: z.string(),
          quantization: z
            .object({
              dtype: z.enum(['uint8', 'uint16', 'float16']),
              scale: z.number().optional(),
              min: z.number().optional(),
            })
            .optional(),
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
  if (parsed.data.format === 'graph-model') {
    throw unreadable(
      file,
      "it is TensorFlow.js's graph model, which keeps no layers",
      undefined,
      'Save the Keras model that it was made of as .h5, or convert it with --output_format=tfjs_layers_model.',
    )
  }
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
      const width = widths[quantization?.dtype ?? dtype]
      if (width === undefined) throw unreadable(file, `${name} is of ${dtype}, whose length is not known`)
      const end = at + width * shape.reduce((product, n) => product * n, 1)
      if (end > bytes.length) throw unreadable(file, `${name} is cut off`)
      const kind = quantization ? `${quantization.dtype}, quantized` : dtype
      tensors.push({ name, shape, kind, values: valuesOf(bytes.subarray(at, end), dtype, quantization) })
      at = end
    }
    if (at !== bytes.length) throw unreadable(file, 'its shards are longer than its weights')
  }
  const network = parseNetwork(parsed.data.userDefinedMetadata?.[NETWORK_KEY], file)
  return {
    format: `TensorFlow.js ${parsed.data.format ?? 'model'}`,
    layers: groupTensors(tensors),
    turned: 'no',
    ...describe(parsed.data.modelTopology),
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
