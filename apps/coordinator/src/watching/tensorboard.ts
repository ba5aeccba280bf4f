import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, truncateSync, writeSync } from 'node:fs'
import { hostname } from 'node:os'
import path from 'node:path'
import type { RunEvent } from '../events.ts'

/**
 * TensorBoard's event files. A file is a row of TFRecords (https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details),
 * all numbers little-endian:
 *
 *     uint64 length, uint32 masked CRC-32C of length, data, uint32 masked CRC-32C of data
 *
 * Each holds one `Event` of tensorflow/core/util/event.proto as protobuf (https://protobuf.dev/programming-guides/encoding/).
 * Of it: 1 wall_time (double, s), 2 step (int64), 3 file_version, 5 summary, 7 session_log. A `Summary`
 * (tensorflow/core/framework/summary.proto) repeats 1 value: 1 tag, 2 simple_value (float). A `SessionLog` has 1 status, START being 1.
 */

/** CRC-32C (Castagnoli), reflected polynomial 0x82f63b78, by table; RFC 3720, appendix B.4. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  return crc
})

function maskedCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8)
  crc = ~crc >>> 0
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}

/** Bytes around the data of a record. */
const [BEFORE, AFTER] = [12, 4]

function record(data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(BEFORE + data.length + AFTER)
  bytes.writeBigUInt64LE(BigInt(data.length))
  bytes.writeUInt32LE(maskedCrc(bytes.subarray(0, 8)), 8)
  bytes.set(data, BEFORE)
  bytes.writeUInt32LE(maskedCrc(data), BEFORE + data.length)
  return bytes
}

/** The wire types of protobuf that occur here. */
const [VARINT, DOUBLE, BYTES, FLOAT] = [0, 1, 2, 5]

/** A whole number of up to 2⁵³ in groups of 7 bits, lowest first. */
function varint(value: number): number[] {
  const bytes: number[] = []
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128)
  return [...bytes, value]
}

function field(number: number, type: number, value: Uint8Array | readonly number[]): Buffer {
  const length = type === BYTES ? varint(value.length) : []
  return Buffer.concat([Buffer.from([(number << 3) | type, ...length]), Buffer.from(value)])
}

const bytes = (view: ArrayBufferView) => new Uint8Array(view.buffer)

/** An `Event` at a step, now. */
function eventRecord(step: number, ...fields: Buffer[]): Buffer {
  const time = field(1, DOUBLE, bytes(Float64Array.of(Date.now() / 1000)))
  return record(Buffer.concat([time, field(2, VARINT, varint(step)), ...fields]))
}

function summary(scalars: Readonly<Record<string, number>>): Buffer {
  const values = Object.entries(scalars).map(([tag, value]) =>
    field(
      1,
      BYTES,
      Buffer.concat([field(1, BYTES, Buffer.from(tag)), field(2, FLOAT, bytes(Float32Array.of(value)))]),
    ),
  )
  return field(5, BYTES, Buffer.concat(values))
}

/** The step of a record that `eventRecord` wrote: it is behind the time, which takes 9 bytes. */
function stepOf(data: Buffer): number {
  let step = 0
  for (let at = 10, scale = 1; ; at++, scale *= 128) {
    step += (data[at] & 127) * scale
    if (data[at] < 128) return step
  }
}

/** Where in a file of ours the records after a step begin, or what is no whole record; in bytes. */
function endOf(file: Buffer, step: number): number {
  let at = 0
  while (at + BEFORE + AFTER <= file.length) {
    const next = at + BEFORE + Number(file.readBigUInt64LE(at)) + AFTER
    if (next > file.length || stepOf(file.subarray(at + BEFORE, next)) > step) break
    at = next
  }
  return at
}

const PREFIX = 'events.out.tfevents.'

/** Writes a run's curves for TensorBoard: `events.out.tfevents.*` in a folder of the run. */
export class TensorBoardLog {
  readonly #folder: string
  #file: number | undefined
  /** Bytes of whole records in the file. */
  #length = 0
  /** Height and width of the run's images in full, where some are smaller. */
  #fullSize: number | undefined

  constructor(folder: string) {
    this.#folder = folder
  }

  hear(event: RunEvent): void {
    switch (event.event) {
      case 'start':
        this.#fullSize = event.sizes?.at(-1)!.size
        return this.#begin(event.resumedAt)
      case 'rolledBack':
        return this.#begin(event.to)
      case 'step': {
        const { step, loss, cost1000, cost5000, accuracy, learningRate, samples, seconds } = event
        const rates = { learning_rate: learningRate, images_per_second: samples / seconds }
        const size = event.size ?? this.#fullSize
        const scalars = {
          loss,
          cost1000,
          cost5000,
          accuracy,
          ...rates,
          ...(size === undefined ? {} : { size }),
        }
        return this.#write(eventRecord(step, summary(scalars)))
      }
      case 'test': {
        const { step, testAccuracy, testLoss } = event
        return this.#write(
          eventRecord(step, summary({ 'test/accuracy': testAccuracy, 'test/loss': testLoss })),
        )
      }
    }
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file)
    this.#file = undefined
  }

  /** A full disk does not end the training, and half a record does not spoil the file. */
  #write(bytes: Buffer): void {
    if (this.#file === undefined) return
    try {
      if (writeSync(this.#file, bytes, 0, bytes.length, this.#length) === bytes.length)
        this.#length += bytes.length
    } catch {
      // The next record takes this one's place.
    }
  }

  /**
   * Goes on after a step, in a new file. What older files have after it is cut off, so that no step is there twice; a
   * TensorBoard that has read it already forgets it by the session's start.
   */
  #begin(step: number): void {
    this.close()
    try {
      mkdirSync(this.#folder, { recursive: true })
      const older = readdirSync(this.#folder).filter((name) => name.startsWith(PREFIX))
      for (const name of older) {
        const file = path.join(this.#folder, name)
        truncateSync(file, endOf(readFileSync(file), step))
      }
      // TensorBoard reads the files of a folder in the order of their names.
      const name = [Math.floor(Date.now() / 1000), hostname(), String(older.length).padStart(4, '0')].join(
        '.',
      )
      this.#file = openSync(path.join(this.#folder, PREFIX + name), 'wx')
    } catch {
      return
    }
    this.#length = 0
    this.#write(eventRecord(0, field(3, BYTES, Buffer.from('brain.Event:2'))))
    if (step > 0) this.#write(eventRecord(step + 1, field(7, BYTES, field(1, VARINT, [1]))))
  }
}
