import type { ParameterLayout } from '@convoy/model'
import { z } from 'zod'
import { toFloat32, widthOf, type FloatKind } from './numbers.ts'
import {
  byNumber,
  groupTensors,
  NETWORK_KEY,
  parseNetwork,
  unreadable,
  type Network,
  type StoredTensor,
  type WeightsFile,
} from './file.ts'

/**
 * The safetensors format (github.com/huggingface/safetensors): the header's length as uint64 little-endian, the header
 * in JSON, then the bytes of all tensors, one behind another without gaps.
 */

const LARGEST_HEADER = 100_000_000
/** Its names of numbers that become float32. */
const kinds: Record<string, FloatKind> = {
  F32: 'float32',
  F16: 'float16',
  BF16: 'bfloat16',
  F64: 'float64',
}
/** Bits of the numbers that a name such as I64 or F8_E4M3 stands for. */
const bitsOf = (dtype: string) => (dtype === 'BOOL' ? 8 : Number(/^[A-Z]+(\d+)/.exec(dtype)?.[1] ?? NaN))
const whole = z.int().min(0)
const headerSpec = z.record(
  z.string(),
  z.object({
    dtype: z.string(),
    shape: z.array(whole),
    data_offsets: z.tuple([whole, whole]),
  }),
)
const metadataSpec = z.object({ __metadata__: z.record(z.string(), z.string()).optional() })

/** Whether bytes look like safetensors. */
export function isSafetensors(bytes: Uint8Array): boolean {
  return bytes.length > 8 && bytes[8] === 0x7b
}

/** Reads a safetensors file. Throws E_WEIGHTS_FILE. */
export function readSafetensors(bytes: Uint8Array, file: string): WeightsFile {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const length = Number(view.getBigUint64(0, true))
  if (length > LARGEST_HEADER || 8 + length > bytes.length) throw unreadable(file, 'its header is cut off')
  let json: object
  try {
    json = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))) as object
  } catch (error) {
    throw unreadable(file, 'its header is not JSON', error)
  }
  const metadata = metadataSpec.safeParse(json)
  const { __metadata__: _, ...entries } = json as Record<string, unknown>
  const header = headerSpec.safeParse(entries)
  if (!metadata.success || !header.success) throw unreadable(file, 'its header is not one of safetensors')
  let covered = 8 + length
  const tensors = Object.entries(header.data).map(([name, { dtype, shape, data_offsets }]): StoredTensor => {
    const [from, to] = data_offsets.map((offset) => 8 + length + offset)
    const kind = kinds[dtype]
    const count = shape.reduce((product, n) => product * n, 1)
    const wanted = kind ? widthOf(kind) * count : Math.ceil((bitsOf(dtype) * count) / 8)
    if (to - from !== wanted || to > bytes.length)
      throw unreadable(file, `${name} is cut off or of another size than its shape says`)
    covered += to - from
    return {
      ...{ name, shape, kind: kind ?? dtype.toLowerCase() },
      values: kind && toFloat32(bytes.subarray(from, to), kind),
    }
  })
  // The format has neither gaps nor anything behind the last tensor.
  if (covered !== bytes.length)
    throw unreadable(file, `it has ${bytes.length} bytes, of which its header names ${covered}`)
  const network = parseNetwork(metadata.data.__metadata__?.[NETWORK_KEY], file)
  return {
    format: 'safetensors',
    // The header is in no particular order.
    layers: groupTensors(tensors.sort((a, b) => byNumber(a.name, b.name))),
    turned: 'no',
    ...(network ? { network } : {}),
  }
}

/** The bytes of a safetensors file with these parameters, kernels HWIO. */
export function encodeSafetensors(
  layout: ParameterLayout,
  parameters: Float32Array,
  network: Network,
): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: { [NETWORK_KEY]: JSON.stringify(network) } }
  for (const { name, shape, offset, size } of layout.views)
    header[name] = { dtype: 'F32', shape, data_offsets: [4 * offset, 4 * (offset + size)] }
  const text = new TextEncoder().encode(JSON.stringify(header))
  // Padded with spaces, so that the numbers lie at a multiple of 8.
  const length = Math.ceil(text.length / 8) * 8
  const bytes = new Uint8Array(8 + length + parameters.byteLength).fill(0x20, 8, 8 + length)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true)
  bytes.set(text, 8)
  bytes.set(new Uint8Array(parameters.buffer, parameters.byteOffset, parameters.byteLength), 8 + length)
  return bytes
}
