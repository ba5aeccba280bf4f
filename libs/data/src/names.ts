/** Names of files and folders, and how they are told. */

const IMAGE = /\.(jpe?g|jpe|jfif|png|webp|gif|bmp|dib|tiff?|avif|ppm|pgm|pbm|pnm)$/i
const HIDDEN =
  /^(\..*|__MACOSX|@eaDir|lost\+found|\$RECYCLE\.BIN|System Volume Information|Thumbs\.db|desktop\.ini)$/i

/** Whether a file's name is that of an image. */
export function isImageName(name: string): boolean {
  return IMAGE.test(name)
}

/** Whether a file's name is that of a Parquet file. */
export function isParquet(name: string): boolean {
  return /\.parquet$/i.test(name)
}

/** Whether a file or folder belongs to a system or an editor rather than to the data. */
export function isHidden(name: string): boolean {
  return HIDDEN.test(name)
}

/** The order of code points, which is how Keras and torchvision sort names; UTF-16's is another beyond U+FFFF. */
export function byName(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const [x, y] = [a.charCodeAt(i), b.charCodeAt(i)]
    if (x === y) continue
    const [high, low] = [x >= 0xd800 && x < 0xe000, y >= 0xd800 && y < 0xe000]
    return high === low ? x - y : high ? (y >= 0xe000 ? 1 : x - y) : x >= 0xe000 ? -1 : x - y
  }
  return a.length - b.length
}

/** The first few of many, in words. */
export function few(names: readonly string[], most = 3): string {
  const more = names.length - most
  return `${names.slice(0, most).join(', ')}${more > 0 ? ` and ${more} more` : ''}`
}
