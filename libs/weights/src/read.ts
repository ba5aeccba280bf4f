import { readFile, writeFile } from 'node:fs/promises'
import { parameterLayout } from '@convoy/model'
import { ConvoyError } from '@convoy/errors'
import path from 'node:path'
import { unreadable, type Network, type WeightsFile } from './file.ts'
import { encodeSafetensors, isSafetensors, readSafetensors } from './safetensors.ts'
import { encodeTfjs, readTfjs } from './tfjs.ts'

/** The HDF5 library, which few commands need. */
const keras = () => import('./keras.ts')

/** Whether bytes begin as an HDF5 file does. */
function isHdf5(bytes: Uint8Array): boolean {
  return (
    bytes.length >= 8 && Buffer.from(bytes.subarray(0, 8)).equals(Buffer.from('\x89HDF\r\n\x1a\n', 'latin1'))
  )
}

/** Whether bytes begin as a zip archive does. */
function isZip(bytes: Uint8Array): boolean {
  return Buffer.from(bytes.subarray(0, 4)).equals(Buffer.from('PK\x03\x04', 'latin1'))
}

/** Reads a weights file of Keras, TensorFlow.js or safetensors, whatever its name. Throws E_WEIGHTS_FILE. */
export async function readWeights(file: string): Promise<WeightsFile> {
  const bytes = await readFile(file).catch((error: Error) => {
    throw unreadable(file, `it cannot be opened: ${error.message}`, error)
  })
  if (isHdf5(bytes)) return (await keras()).readKeras(file)
  if (isZip(bytes)) return (await keras()).readKerasArchive(file)
  if (isSafetensors(bytes)) return readSafetensors(bytes, file)
  if (/^\s*\{/.test(bytes.subarray(0, 64).toString('latin1')))
    return readTfjs(bytes.toString('utf8'), file, (shard) => readFile(path.join(path.dirname(file), shard)))
  throw unreadable(file, 'it is neither HDF5 nor safetensors nor a model.json')
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
