import { open, readFile, writeFile } from 'node:fs/promises'
import { parameterLayout } from '@convoy/model'
import { openZip } from '@convoy/download'
import { ConvoyError } from '@convoy/errors'
import path from 'node:path'
import { LARGEST_FILE, unreadable, type Network, type WeightsFile } from './file.ts'
import { encodeSafetensors, isSafetensors, readSafetensors } from './safetensors.ts'
import { encodeTfjs, readTfjs } from './tfjs.ts'
import { isTorch, readTorch } from './torch.ts'

/** The HDF5 library, which few commands need. */
const keras = () => import('./keras.ts')

const begins = (bytes: Uint8Array, text: string) =>
  Buffer.from(bytes.subarray(0, text.length)).equals(Buffer.from(text, 'latin1'))

/** What a file is that is no weights file of a known format, by how it begins; and what helps. */
function strange(head: Uint8Array): { what: string; remedy?: string } {
  const text = Buffer.from(head).toString('latin1')
  if (head.length === 0) return { what: 'it is empty', remedy: 'Fetch it again.' }
  if (text.startsWith('version https://git-lfs'))
    return {
      what: 'it is a Git LFS pointer, not the file itself',
      remedy: 'Run `git lfs pull` where it comes from.',
    }
  if (/^\s*<(!doctype|html|\?xml)/i.test(text))
    return { what: 'it is a web page', remedy: 'Fetch the file itself; the page may ask to log in.' }
  const resave = {
    remedy: 'Save it anew with a PyTorch since 1.6: torch.save(model.state_dict(), "weights.pt").',
  }
  if (text.startsWith('\x80\x02\x8a\x0al\xfc\x9c'))
    return { what: "it is PyTorch's format before 1.6", ...resave }
  if (head[0] === 0x80 && head[1] >= 2 && head[1] <= 5)
    return { what: "it is Python's pickle, and none of PyTorch", ...resave }
  if (text.startsWith('\x93NUMPY')) return { what: "it is NumPy's .npy" }
  if (head[0] === 0x08 && head[1] <= 0x10 && head[2] === 0x12)
    return { what: "it is ONNX or TensorFlow's saved model, which keep no layers" }
  return { what: 'it is neither HDF5 nor safetensors nor a model.json nor of PyTorch' }
}

/** The first bytes of a file, and how many it has. */
async function headOf(file: string): Promise<{ head: Uint8Array; size: number }> {
  const handle = await open(file)
  try {
    const { buffer, bytesRead } = await handle.read(new Uint8Array(256), 0, 256, 0)
    return { head: buffer.subarray(0, bytesRead), size: (await handle.stat()).size }
  } finally {
    await handle.close()
  }
}

/** Members of an archive at most. */
const MOST_MEMBERS = 20_000

/** Reads a zip archive: PyTorch's or Keras's. */
async function readArchive(file: string): Promise<WeightsFile> {
  const zip = await openZip(file, MOST_MEMBERS).catch((error: Error) => {
    throw unreadable(file, `it cannot be unpacked: ${error.message}`, error)
  })
  try {
    const members = new Map(zip.members.map((member) => [member.name, member]))
    if (isTorch(members)) return await readTorch(members, file)
    return await (await keras()).readKerasArchive(members, file)
  } finally {
    zip.close()
  }
}

/** Reads a weights file of Keras, TensorFlow.js, safetensors or PyTorch, whatever its name. Throws E_WEIGHTS_FILE. */
export async function readWeights(file: string): Promise<WeightsFile> {
  const cannot = (error: Error) => {
    throw unreadable(file, `it cannot be opened: ${error.message}`, error)
  }
  const { head, size } = await headOf(file).catch(cannot)
  if (begins(head, '\x89HDF\r\n\x1a\n')) return (await keras()).readKeras(file)
  if (begins(head, 'PK\x03\x04')) return readArchive(file)
  const json = /^\s*\{/.test(Buffer.from(head.subarray(0, 64)).toString('latin1'))
  if (!isSafetensors(head) && !json) {
    const { what, remedy } = strange(head)
    throw unreadable(file, what, undefined, remedy)
  }
  if (size > LARGEST_FILE)
    throw unreadable(file, `it has ${size} bytes, more than any network here (${LARGEST_FILE})`)
  const bytes = await readFile(file).catch(cannot)
  if (isSafetensors(bytes)) return readSafetensors(bytes, file)
  return readTfjs(bytes.toString('utf8'), file, (shard) => readFile(path.join(path.dirname(file), shard)))
}

/**
 * Writes weights in the format that the name asks for: `.safetensors`, `.json` (TensorFlow.js, with its shards beside it),
 * `.weights.h5` (Keras 3's save_weights) or another `.h5` (Keras's save).
 *
 * @returns The files that were written. Throws E_USAGE for another name, E_WEIGHTS_FILE and E_WEIGHTS_FIT.
 */
export async function writeWeights(
  file: string,
  parameters: Float32Array,
  network: Network,
): Promise<string[]> {
  if (/\.(h5|hdf5)$/.test(file)) {
    const { writeKeras } = await keras()
    await writeKeras(file, parameters, network)
    return [file]
  }
  const files = file.endsWith('.json')
    ? encodeTfjs(path.basename(file), parameters, network)
    : file.endsWith('.safetensors')
      ? new Map([
          [path.basename(file), encodeSafetensors(parameterLayout(network.model), parameters, network)],
        ])
      : undefined
  if (!files) {
    throw new ConvoyError(
      'E_USAGE',
      `${file} does not say in which format to write`,
      'End the name in .safetensors, .json (TensorFlow.js), .h5 or .weights.h5 (Keras).',
    )
  }
  const written: string[] = []
  for (const [name, bytes] of files) {
    const to = path.join(path.dirname(file), name)
    await writeFile(to, bytes).catch((error: Error) => {
      throw unreadable(to, `it cannot be written: ${error.message}`, error)
    })
    written.push(to)
  }
  return written
}
