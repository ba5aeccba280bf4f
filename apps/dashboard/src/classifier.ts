import { ConvoyError } from '@convoy/errors'
import type { Connection, Pushed } from './connection.ts'
import { announce, el, setText } from './dom.ts'
import * as format from './format.ts'
import { ask, decodeImage, errorText, fileInput } from './images.ts'
import type { Classifier } from './network.ts'
import { drawHeat, drawPictures, drawPixels } from './pictures.ts'
import type { View } from './view.ts'

/** Classes that are listed at most. */
const LISTED = 10

/** Shows images to a network: its answer, what its layers make of them, and the pixels that the answer hangs on. */
export class ClassifierView implements View {
  readonly element: HTMLElement
  readonly #connection: Connection
  readonly #gone = new AbortController()
  /** The run whose weights are used unless there is a file of weights; '' for the one that is trained. */
  #run: string
  #weightsFile: File | undefined
  /** Whether weights were asked for that are still to come. */
  #waiting = false
  /** Step of the newest checkpoint of the run that is trained, as far as is known. */
  #newest: number | null = null
  #network: Classifier | undefined
  #file: File | undefined
  /** The class whose pixels are shown. */
  #label = 0
  /** Counts what was asked for, so that an answer that comes late is not shown. */
  #asked = 0
  readonly #runs = el('select', { 'aria-label': 'Weights' })
  readonly #take = el('button', { type: 'button' }, 'Take the newest')
  readonly #about = el('p', { class: 'muted', role: 'status' })
  readonly #error = el('p', { class: 'error', role: 'alert' })
  readonly #image = el('canvas', { role: 'img' })
  readonly #imageNote = el('small', {})
  readonly #heat = el('canvas', { role: 'img' })
  readonly #heatNote = el('small', {})
  readonly #bars = el('ol', { class: 'bars' })
  readonly #filters = el('canvas', { role: 'img', class: 'tiles-image' })
  readonly #filtersNote = el('small', {})
  readonly #layer = el('select', {})
  readonly #maps = el('canvas', { role: 'img', class: 'tiles-image' })
  readonly #mapsNote = el('small', {})
  readonly #answer: HTMLElement
  readonly #first: HTMLElement
  readonly #layers: HTMLElement

  /** @param run The run whose newest weights are used; '' for the one that is trained. */
  constructor(connection: Connection, run: string) {
    this.#connection = connection
    this.#run = run
    const figure = (title: string, ...parts: HTMLElement[]) =>
      el('figure', { class: 'plane' }, el('h2', {}, title), ...parts)
    this.#answer = el(
      'section',
      { class: 'card answer', 'aria-label': 'Answer' },
      figure('Image', this.#image, this.#imageNote),
      figure('Saliency', this.#heat, this.#heatNote),
      el('div', { class: 'grow' }, el('h2', {}, 'Probabilities'), this.#bars),
    )
    this.#first = el(
      'section',
      { class: 'card stack' },
      el('h2', {}, 'Filters of the first layer'),
      this.#filters,
      this.#filtersNote,
    )
    this.#layers = el(
      'section',
      { class: 'card stack' },
      el('div', { class: 'row' }, el('h2', {}, 'Feature maps'), el('label', {}, 'After ', this.#layer)),
      this.#maps,
      this.#mapsNote,
    )
    this.#answer.hidden = this.#first.hidden = this.#layers.hidden = true
    this.element = el('div', { class: 'stack' }, el('h1', { class: 'plain' }, 'Classify'))
    const attributes = { accept: 'image/*,.safetensors,.convoy,.json,.bin', multiple: '' }
    const label =
      'Image, or weights (.safetensors, .convoy, or a model.json with its .bin files): choose, drop or paste'
    const take = (files: readonly File[]) => this.#receive(files)
    const input = fileInput(this.element, label, attributes, this.#gone.signal, take)
    this.element.append(
      el(
        'section',
        { class: 'card controls', 'aria-label': 'Weights and image' },
        el('div', { class: 'row sources' }, el('label', {}, 'Weights', this.#runs), this.#take, input),
        this.#about,
        this.#error,
      ),
      this.#answer,
      el('div', { class: 'charts' }, this.#layers, this.#first),
    )
    this.#runs.addEventListener('change', () => {
      this.#run = this.#runs.value
      this.#weightsFile = undefined
      history.replaceState(null, '', `#/classify/${encodeURIComponent(this.#run)}`)
      void this.#takeNewest()
    })
    this.#take.addEventListener('click', () => void this.#takeNewest())
    this.#layer.addEventListener('change', () => this.#drawMaps())
    document.title = 'Classify – Convoy'
  }

  refresh(): void {
    void this.#listRuns()
    if (!this.#network) void this.#takeNewest()
  }

  push(message: Pushed): void {
    this.#newest = message.status.checkpoint
    this.#showNewest()
    if (this.#waiting && this.#isCurrent && this.#newest !== null) void this.#takeNewest()
  }

  redraw(): void {
    if (this.#network && this.#file) this.#drawHeat()
  }

  dispose(): void {
    this.#gone.abort()
    this.#asked++
    this.#network?.dispose()
  }

  get #isCurrent(): boolean {
    return !this.#weightsFile && (this.#run === '' || this.#run === this.#connection.run)
  }

  async #listRuns(): Promise<void> {
    const runs = await this.#connection.runs().catch(() => [])
    this.#runs.replaceChildren(
      ...runs.map(({ name, current }) =>
        el('option', { value: name }, current ? `newest of ${name} (here)` : `newest of ${name}`),
      ),
    )
    this.#showSource()
  }

  #showSource(): void {
    const file = this.#weightsFile
    this.#runs.querySelector('.from-file')?.remove()
    if (file) this.#runs.prepend(el('option', { class: 'from-file', value: file.name }, file.name))
    this.#runs.value = file?.name ?? (this.#run || this.#connection.run)
    this.#showNewest()
  }

  #showNewest(): void {
    const { step } = this.#network?.weights ?? {}
    const newer = this.#isCurrent && this.#newest !== null && step !== undefined && this.#newest > step
    setText(this.#take, newer ? `Take the newest (step ${format.whole(this.#newest)})` : 'Take the newest')
    this.#take.hidden = this.#weightsFile !== undefined
  }

  /** Files that were chosen, dropped or pasted: weights where one has such a name, else an image. */
  #receive(files: readonly File[]): void {
    const weights = files.find(({ name }) => /\.(safetensors|convoy|json)$/.test(name))
    const [first] = files
    if (weights) {
      const read = async () => new Uint8Array(await weights.arrayBuffer())
      void this.#use(weights.name, read, files).then((used) => {
        if (!used) return
        this.#weightsFile = weights
        this.#showSource()
      })
    } else if (/\.(h5|hdf5|keras|onnx|npz|pt|pth|bin)$/i.test(first.name)) {
      const error = new ConvoyError(
        'E_WEIGHTS_FILE',
        `the page does not read ${first.name}`,
        first.name.endsWith('.bin')
          ? 'Give it together with its model.json.'
          : `\`./convoy weights import ${first.name} --data SOURCE\` makes a .safetensors of Keras files.`,
      )
      setText(this.#error, errorText(error))
    } else {
      this.#file = first
      void this.#classify()
    }
  }

  async #takeNewest(): Promise<void> {
    const run = this.#run || this.#connection.run
    this.#showSource()
    await this.#use(`${run}.convoy`, async () => {
      if (this.#isCurrent && this.#newest === null) {
        const about = await this.#connection.history(run, 0, null, 10).catch(() => undefined)
        this.#newest = about?.status.checkpoint ?? null
        this.#waiting = about !== undefined && this.#newest === null
        if (this.#waiting) {
          throw new ConvoyError(
            'E_RUN',
            `the run ${run} has no weights yet`,
            'They come with its first checkpoint; until then, drop a weights file here.',
          )
        }
      }
      const answer = await ask(this.#connection, `/weights?run=${encodeURIComponent(run)}`, {})
      return new Uint8Array(await answer.arrayBuffer())
    })
    this.#showNewest()
  }

  /** Takes weights into use; false where that failed or something else was asked for meanwhile. */
  async #use(name: string, read: () => Promise<Uint8Array>, beside: readonly File[] = []): Promise<boolean> {
    const asked = ++this.#asked
    this.#waiting = false
    setText(this.#error, '')
    setText(this.#about, `Loading ${name} …`)
    try {
      const bytes = await read()
      const { openClassifier } = await import('./network.ts').catch(() => {
        throw new ConvoyError(
          'E_UNREACHABLE',
          'TensorFlow.js could not be loaded: the coordinator does not answer',
          'Load the page anew when it does.',
        )
      })
      const network = await openClassifier(bytes, name, beside)
      if (asked !== this.#asked) {
        network.dispose()
        return false
      }
      this.#network?.dispose()
      this.#network = network
    } catch (error) {
      if (asked === this.#asked) setText(this.#error, errorText(error))
      this.#showAbout()
      return false
    }
    this.#showAbout()
    this.#drawFilters()
    this.#layer.replaceChildren(
      ...this.#network.layers.map(({ name, shape }, i) =>
        el('option', { value: i }, `${name} (${shape.join('×')})`),
      ),
    )
    if (this.#file) await this.#classify()
    return true
  }

  #showAbout(): void {
    if (!this.#network) return setText(this.#about, '')
    const { model, step, parameters } = this.#network.weights
    const at = step === undefined ? '' : `, step ${format.whole(step)}`
    setText(
      this.#about,
      `${model.name}${at}: ${format.whole(parameters.length)} parameters, ${model.classes} classes, images of ${model.input[0]}×${model.input[1]}. ${this.#file ? '' : 'Now give it an image.'}`,
    )
  }

  async #classify(): Promise<void> {
    const [network, file] = [this.#network, this.#file!]
    if (!network) {
      if (this.#error.textContent === '') setText(this.#about, 'The image waits for weights.')
      return
    }
    try {
      setText(this.#error, '')
      const side = network.weights.model.input[0]
      const pixels = await decodeImage(this.#connection, file, side)
      if (network !== this.#network || file !== this.#file || this.#gone.signal.aborted) return
      this.#answer.hidden = this.#layers.hidden = false
      this.#showAbout()
      drawPixels(this.#image, pixels, side)
      this.#image.setAttribute('aria-label', file.name)
      setText(this.#imageNote, `${file.name}, as the network gets it`)
      this.#showProbabilities(network.classify(pixels))
      this.#drawHeat()
      this.#drawMaps()
    } catch (error) {
      this.#file = undefined
      setText(this.#error, errorText(error))
    }
  }

  #showProbabilities(probabilities: readonly number[]): void {
    const { classes } = this.#network!
    const ranked = probabilities
      .map((probability, label) => ({ probability, label }))
      .sort((a, b) => b.probability - a.probability)
    this.#label = ranked[0].label
    this.#bars.replaceChildren(
      ...ranked.slice(0, LISTED).map(({ probability, label }) => {
        const fill = el('span', { class: 'fill' })
        fill.style.width = `${100 * probability}%`
        const button = el(
          'button',
          {
            type: 'button',
            'data-label': label,
            'data-class': classes[label],
            'data-probability': probability,
            title: 'Show the pixels that it hangs on',
          },
          el('span', {}, classes[label]),
          el('span', { class: 'value' }, format.percent(probability, 1)),
          el('span', { class: 'bar' }, fill),
        )
        button.addEventListener('click', () => {
          this.#label = label
          this.#drawHeat()
        })
        return el('li', {}, button)
      }),
    )
    announce(`${classes[ranked[0].label]}, ${format.percent(ranked[0].probability, 1)}`)
  }

  #drawHeat(): void {
    const name = this.#network!.classes[this.#label]
    for (const button of this.#bars.querySelectorAll('button'))
      button.setAttribute('aria-pressed', String(button.dataset['label'] === String(this.#label)))
    drawHeat(this.#heat, this.#network!.saliency(this.#label))
    this.#heat.setAttribute('aria-label', `The pixels that ${name} hangs on`)
    setText(
      this.#heatNote,
      `The pixels that ${name} hangs on: the brighter, the more a small change of the pixel changes its logit`,
    )
  }

  #drawFilters(): void {
    const filters = this.#network!.filters()
    this.#first.hidden = false
    drawPictures(this.#filters, filters)
    const text = `${filters.count} filters of ${filters.height}×${filters.width}, each from its smallest weight to its largest`
    this.#filters.setAttribute('aria-label', text)
    setText(this.#filtersNote, text)
  }

  #drawMaps(): void {
    const maps = this.#network!.maps(Number(this.#layer.value))
    drawPictures(this.#maps, maps)
    const size = maps.height * maps.width
    let still = 0
    for (let i = 0; i < maps.count; i++)
      if (maps.values.subarray(i * size, (i + 1) * size).every((value) => value === 0)) still++
    const silent = still > 0 ? `; ${still} are 0 everywhere` : ''
    const text = `${maps.count} maps of ${maps.height}×${maps.width}, each from its smallest number (black) to its largest${silent}`
    this.#maps.setAttribute('aria-label', text)
    setText(this.#mapsNote, text)
  }
}
