import type { Score } from '@convoy/coordinator'
import { loadSharp, type Dataset } from '@convoy/data'
import { crossEntropy, probabilities, type ModelSpec } from '@convoy/model'
import { escape } from './chart.ts'
import { percent } from './format.ts'

/** Of each class: how many of its images were found, and how many taken for it are of it; NaN where there are none. */
export function classScores(
  confusion: readonly (readonly number[])[],
): { recall: number; precision: number; count: number }[] {
  return confusion.map((row, i) => {
    const count = row.reduce((sum, n) => sum + n, 0)
    const taken = confusion.reduce((sum, other) => sum + other[i], 0)
    return { recall: row[i] / count, precision: row[i] / taken, count }
  })
}

/** Recall and precision of each class, and the confusion matrix: a row is what an image is, a column what it was taken for. */
export function scoreTable({ confusion }: Score, classes: readonly string[]): string {
  const wide = Math.max(8, ...classes.map((name) => name.length))
  const cell = (text: string | number, width = 7) => String(text).padStart(width)
  const share = (part: number) => (Number.isNaN(part) ? '–' : `${(100 * part).toFixed(1)} %`)
  const scores = classScores(confusion)
  const head = `${''.padEnd(wide)}${cell('recall', 9)}${cell('precision', 11)}  ${classes.map((name) => cell(name.slice(0, 6))).join('')}`
  const rows = classes.map(
    (name, i) =>
      `${name.padEnd(wide)}${cell(share(scores[i].recall), 9)}${cell(share(scores[i].precision), 11)}  ${confusion[i].map((n) => cell(n)).join('')}`,
  )
  return [head, ...rows].join('\n')
}

/** The confusion matrix as an SVG image: the darker, the larger the share of the row. */
export function confusionSvg(score: Score, classes: readonly string[]): string {
  const cell = 48
  const margin = 110
  const side = margin + cell * classes.length + 10
  const parts: string[] = []
  classes.forEach((name, i) => {
    const middle = margin + cell * (i + 0.5)
    const label = escape(name.slice(0, 14))
    parts.push(
      `<text x="${margin - 8}" y="${middle + 4}" text-anchor="end">${label}</text>`,
      `<text transform="translate(${middle + 4} ${margin - 8}) rotate(-60)">${label}</text>`,
    )
    const total = score.confusion[i].reduce((sum, n) => sum + n, 0)
    score.confusion[i].forEach((n, k) => {
      const share = total === 0 ? 0 : n / total
      // Hits in blue, misses in orange, on a scale that shows small shares too.
      const colour = `rgb(${(i === k ? [31, 90, 166] : [200, 82, 0]).map((c) => Math.round(255 - (255 - c) * Math.sqrt(share))).join(' ')})`
      const [x, y] = [margin + cell * k, margin + cell * i]
      parts.push(
        `<rect x="${x}" y="${y}" width="${cell}" height="${cell}" fill="${colour}" stroke="#ddd"><title>${label} taken for ${escape(classes[k])}: ${n}</title></rect>`,
        `<text x="${x + cell / 2}" y="${y + cell / 2 + 4}" text-anchor="middle" fill="${share > 0.4 ? '#fff' : '#222'}">${n}</text>`,
      )
    })
  })
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${side}" height="${side + 24}" viewBox="0 0 ${side} ${side + 24}" font-family="sans-serif" font-size="12">`,
    `<title>Confusion matrix: ${score.count} images, accuracy ${percent(score.accuracy)}</title>`,
    '<rect width="100%" height="100%" fill="#fff"/>',
    ...parts,
    `<text x="${margin}" y="${side + 12}">row: what it is; column: what it was taken for; accuracy ${percent(score.accuracy)}</text>`,
    '</svg>\n',
  ].join('\n')
}

/** An image that was taken for another class. */
export interface Mistake {
  /** Its number in the test set. */
  readonly image: number
  readonly label: number
  readonly predicted: number
  /** The probability of what it was taken for. */
  readonly probability: number
  /** Its cost in nats. */
  readonly loss: number
}

/** The mistakes that cost the most, the worst first. */
export function worstMistakes(
  model: ModelSpec,
  labels: Int32Array,
  logits: Float32Array,
  most: number,
): Mistake[] {
  const { head, classes } = model
  const mistakes: Mistake[] = []
  labels.forEach((label, image) => {
    const shares = probabilities(head, logits, image * classes, classes)
    const predicted = shares.indexOf(Math.max(...shares))
    if (predicted === label) return
    const loss = crossEntropy(head, logits, image * classes, classes, label)
    mistakes.push({ image, label, predicted, probability: shares[predicted], loss })
  })
  return mistakes.sort((a, b) => b.loss - a.loss).slice(0, most)
}

const COLUMNS = 8
const TILE = 96
const CAPTION = 34

/** Writes the worst mistakes as one picture, each with what it is and what it was taken for. */
export async function drawMistakes(
  file: string,
  mistakes: readonly Mistake[],
  dataset: Dataset,
): Promise<void> {
  const [height, width, channels] = dataset.shape
  const size = height * width * channels
  const { pixels } = dataset.test
  const sharp = await loadSharp()
  if (!(pixels instanceof Uint8Array)) throw new Error('whitened images cannot be shown')
  const place = (i: number) => ({
    left: 8 + (i % COLUMNS) * (TILE + 8),
    top: 8 + Math.floor(i / COLUMNS) * (TILE + CAPTION),
  })
  const tiles = await Promise.all(
    mistakes.map(async ({ image }, i) => ({
      ...place(i),
      input: await sharp(pixels.subarray(image * size, (image + 1) * size), {
        raw: { width, height, channels: channels as 3 },
      })
        .resize(TILE, TILE, { kernel: 'nearest', fit: 'fill' })
        .png()
        .toBuffer(),
    })),
  )
  const total = {
    width: 8 + COLUMNS * (TILE + 8),
    height: 8 + Math.max(1, Math.ceil(mistakes.length / COLUMNS)) * (TILE + CAPTION),
  }
  const captions = mistakes.map(({ label, predicted, probability }, i) => {
    const { left, top } = place(i)
    const line = (text: string, y: number, fill: string) =>
      `<text x="${left}" y="${top + TILE + y}" fill="${fill}">${escape(text)}</text>`
    return (
      line(dataset.classes[label].slice(0, 14), 12, '#1f5aa6') +
      line(`${dataset.classes[predicted].slice(0, 10)} ${(100 * probability).toFixed(0)} %`, 25, '#c85200')
    )
  })
  const text = `<svg xmlns="http://www.w3.org/2000/svg" width="${total.width}" height="${total.height}" font-family="sans-serif" font-size="11">${captions.join('')}</svg>`
  await sharp({ create: { ...total, channels: 3, background: '#fff' } })
    .composite([...tiles, { input: Buffer.from(text), left: 0, top: 0 }])
    .png()
    .toFile(file)
}
