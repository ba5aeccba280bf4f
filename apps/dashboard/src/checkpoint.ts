import { parameterLayout } from '@convoy/model'
import {
  matchWeights,
  networkSpec,
  readSafetensors,
  readTfjs,
  unreadable,
  type Network,
} from '@convoy/weights/browser'
import { Unpackr } from 'msgpackr/unpack'

/** Weights, and what their file says of their network. */
export interface Weights extends Network {
  /** Flat float32 in the model's layout. */
  readonly parameters: Float32Array
  /** Updates after which the checkpoint was written; undefined for other files. */
  readonly step?: number
}

/** Bytes behind a checkpoint's frame: its SHA-256. */
const DIGEST = 32
/** Bytes at the beginning and end of a frame (libs/protocol/src/frame.ts). */
const [PREFIX, TRAILER] = [8, 4]

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let sum = byte
  for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? 0xedb88320 ^ (sum >>> 1) : sum >>> 1
  return sum
})

/** CRC-32 as zlib has it. */
function crc32(bytes: Uint8Array): number {
  let sum = ~0
  for (let i = 0; i < bytes.length; i++) sum = table[(sum ^ bytes[i]) & 255] ^ (sum >>> 8)
  return ~sum >>> 0
}

/**
 * Reads a checkpoint, a safetensors file or a model.json of TensorFlow.js, by its name. Throws E_WEIGHTS_FILE and
 * E_WEIGHTS_FIT.
 *
 * @param beside The files that were given with it: a model.json's shards are among them.
 */
export async function readWeights(
  bytes: Uint8Array,
  file: string,
  beside: readonly File[] = [],
): Promise<Weights> {
  if (file.endsWith('.convoy')) return readCheckpoint(bytes, file)
  if (bytes.length < 8) throw unreadable(file, 'it is too short')
  const readShard = async (name: string) => {
    const shard = beside.find((one) => one.name === name)
    if (!shard) throw new Error(`${name} is not there; give the .bin files together with it`)
    return new Uint8Array(await shard.arrayBuffer())
  }
  const stored = file.endsWith('.json')
    ? await readTfjs(new TextDecoder().decode(bytes), file, readShard)
    : readSafetensors(bytes, file)
  if (!stored.network) throw nameless(file)
  return { ...stored.network, parameters: matchWeights(stored, stored.network.model).parameters }
}

function readCheckpoint(bytes: Uint8Array, file: string): Weights {
  const end = bytes.length - DIGEST - TRAILER
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (end < PREFIX || crc32(bytes.subarray(0, end)) !== view.getUint32(end, true))
    throw unreadable(file, 'it is torn or no checkpoint: its checksum does not match')
  const start = view.getUint32(4, true)
  const header = new Unpackr({ useRecords: false }).unpack(
    bytes.subarray(PREFIX, PREFIX + view.getUint32(0, true)),
  ) as { kind?: unknown; step?: unknown; network?: unknown; variablesSize?: unknown }
  const network = networkSpec.safeParse(header.network)
  if (header.kind !== 'checkpoint' || !network.success) throw nameless(file)
  const { size } = parameterLayout(network.data.model)
  // The velocity follows the parameters, and first what they are made of, where that is something else.
  const variables = header.variablesSize === undefined ? size / 2 : Number(header.variablesSize)
  if (end - start !== 4 * size + 8 * variables) throw unreadable(file, 'it has the wrong size')
  return {
    ...network.data,
    parameters: new Float32Array(bytes.slice(start, start + 4 * size).buffer),
    step: Number(header.step),
  }
}

const nameless = (file: string) =>
  unreadable(
    file,
    'it does not say of which network it is (`convoy weights import FILE --data SOURCE` writes one that does)',
  )
