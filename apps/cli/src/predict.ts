import { decodeImage, ImageFiller, isHidden, isImageName } from '@convoy/data'
import { PREDICT_BATCH } from '@convoy/engine'
import { createEngine } from '@convoy/engines'
import { asConvoyError, ConvoyError } from '@convoy/errors'
import { probabilities, volume } from '@convoy/model'
import { requireFinite } from '@convoy/weights'
import { engineSchema } from '@convoy/worker'
import { readdir, readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { Display, styleFor } from './display.ts'
import { percent } from './format.ts'
import { bringOnednn } from './onednn.ts'
import { collect, settle, type Given } from './options.ts'
import { EXIT } from './schemas.ts'
import { openSource, type SourceOptions } from './source.ts'

interface Options extends SourceOptions {
  json?: boolean
  top?: string
}

/** The images that paths name: files, and all images below folders. Throws E_DATA_NOT_FOUND. */
async function imagesOf(paths: readonly string[]): Promise<string[]> {
  const files: string[] = []
  for (const given of paths) {
    const found = await stat(given).catch(() => undefined)
    if (!found) {
      throw new ConvoyError(
        'E_DATA_NOT_FOUND',
        `there is nothing at ${given}`,
        'Give images or folders of images.',
      )
    }
    if (!found.isDirectory()) files.push(given)
    else {
      const inside = await readdir(given, { recursive: true })
      const images = inside.filter((name) => isImageName(name) && !name.split(path.sep).some(isHidden)).sort()
      if (images.length === 0) {
        throw new ConvoyError(
          'E_DATA_NOT_FOUND',
          `${given} holds no images`,
          'Give images or folders of images.',
        )
      }
      for (const name of images) files.push(path.join(given, name))
    }
  }
  return files
}

/** An image's pixels, `side` a side. Throws E_DATA_IMAGE. */
async function decodeFile(file: string, side: number): Promise<Uint8Array> {
  const bytes = await readFile(file).catch((error: Error) => {
    throw new ConvoyError(
      'E_DATA_IMAGE',
      `${file} cannot be read: ${error.message}`,
      'Check that the file is there and readable.',
    )
  })
  return decodeImage(bytes, side, file)
}

/**
 * `convoy predict IMAGE…`: the classes of images and their probabilities. An image that cannot be decoded is told, the
 * others are predicted all the same, and the exit code is 1.
 */
export async function predict(paths: readonly string[], given: Given, options: Options): Promise<number> {
  const display = new Display(styleFor(options.json), process.stdout)
  const { file, network, matched } = await openSource(options, (text) => display.say(text))
  const { model, preprocessing } = network
  const top = Number(options.top ?? 3)
  if (!Number.isInteger(top) || top < 1)
    throw new ConvoyError('E_USAGE', `--top ${options.top} is not possible`, 'Give a whole number from 1.')
  if (!preprocessing) {
    throw new ConvoyError(
      'E_USAGE',
      'these weights do not say how images are normalised (whitening with ZCA is not kept)',
      'Say it with `convoy weights import FILE --data SOURCE`, with the data that they were trained on.',
    )
  }
  requireFinite(matched.parameters, model, file)
  const classes = network.classes ?? Array.from({ length: model.classes }, (_, i) => `class ${i}`)
  const files = await imagesOf(paths)
  const choice = settle(engineSchema, collect(engineSchema, given))
  await bringOnednn(choice, display)
  // A few images are soon done, and bf16 would change the third digit of a probability.
  const precision = choice.precision === 'auto' ? 'float32' : choice.precision
  const engine = await createEngine({ ...choice, device: choice.device ?? 0, precision })
  const compiled = await engine.compile(model, 1)
  compiled.load(matched.parameters)
  const filler = new ImageFiller(model.input, preprocessing, { flip: false, shift: 0 })
  const size = volume(model.input)
  const images = new Float32Array(PREDICT_BATCH * size)
  const logits = new Float32Array(model.classes)
  // Not Math.max(...): a folder may have more images than a call has arguments.
  const widest = files.reduce((most, { length }) => Math.max(most, length), 0)
  let failed = false
  for (let from = 0; from < files.length; from += PREDICT_BATCH) {
    const batch = files.slice(from, from + PREDICT_BATCH)
    const pixels = await Promise.all(
      batch.map((file) => decodeFile(file, model.input[0]).catch((error: unknown) => asConvoyError(error))),
    )
    for (const [i, file] of batch.entries()) {
      const decoded = pixels[i]
      if (decoded instanceof ConvoyError) {
        failed = true
        const { code, message, remedy } = decoded
        if (options.json)
          process.stdout.write(`${JSON.stringify({ event: 'error', file, code, message, remedy })}\n`)
        else display.say(`${file.padEnd(widest)}  ${code}: ${message}`)
        continue
      }
      const image = images.subarray(i * size, (i + 1) * size)
      filler.fill(decoded, undefined, image)
      // One by one: so the answer for an image is the same whatever it is asked with.
      await compiled.predict(image, 1, logits)
      const ranked = probabilities(model.head, logits, 0, model.classes)
        .map((probability, k) => ({ label: classes[k], probability }))
        .sort((a, b) => b.probability - a.probability)
        .slice(0, top)
      if (options.json) {
        process.stdout.write(`${JSON.stringify({ event: 'prediction', file, classes: ranked })}\n`)
      } else {
        const shown = ranked.map(({ label, probability }) => `${label} ${percent(probability)}`).join(', ')
        display.say(`${file.padEnd(widest)}  ${shown}`)
      }
    }
  }
  engine.dispose()
  return failed ? EXIT.failed : EXIT.done
}
