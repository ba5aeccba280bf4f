import {
  inputShapes,
  outputShapes,
  parameterLayout,
  slides,
  trainedLayout,
  volume,
  windowOf,
  type LayerSpec,
  type ModelSpec,
  type ParameterView,
  type Shape,
} from '@convoy/model'
import { ConvoyError } from '@convoy/errors'
import { Arena, maskRule, targets } from '@convoy/engine'
import {
  bytesOf,
  type Argument,
  type Call,
  type Choose,
  type Convolution,
  type FloatType,
  type Tensor,
} from './calls.ts'
import { entry, PACK, ROWS } from './kernels.ts'

type Pool = Extract<LayerSpec, { kind: 'maxPool' | 'averagePool' | 'sumPool' | 'globalAveragePool' }>

type Convolving = Extract<LayerSpec, { kind: 'conv2d' }>

/** What the kernels call the poolings. */
const poolings: Record<Pool['kind'], number> = {
  maxPool: 0,
  averagePool: 1,
  globalAveragePool: 1,
  sumPool: 2,
}

/** Rows and columns of zeros around images, kept with them. */
interface Rim {
  readonly above: number
  readonly left: number
  readonly below: number
  readonly right: number
}
const noRim: Rim = { above: 0, left: 0, below: 0, right: 0 }

/** Activations [count, above + height + below, left + width + right, channels]. */
interface Activations {
  readonly tensor: Tensor
  readonly type: FloatType
  readonly shape: Shape
  readonly rim: Rim
}

/**
 * A convolution's zeros, [rows, columns]: `padding` is cuDNN's own, the same on both sides; what one side has more stands around
 * the image, unless cuDNN may see more zeros behind without another output.
 */
function zerosOf(layer: Convolving, input: Shape): { padding: [number, number]; rim: Rim } {
  const sides = slides(input, windowOf(layer, input)).map(({ output, before, after }, d) => {
    const own = Math.floor((input[d] + 2 * before - layer.kernel[d]) / layer.stride[d]) + 1
    const padding = before > after && own !== output ? after : before
    return { padding, before: before - padding, after: Math.max(0, after - padding) }
  })
  const [rows, columns] = sides
  return {
    padding: [rows.padding, columns.padding],
    rim: { above: rows.before, left: columns.before, below: rows.after, right: columns.after },
  }
}

/** So that every vector of a kernel and of cuDNN is aligned. */
const ALIGNMENT = 256
/** Kernels count places in 32 bits. */
const MOST = 2 ** 31
/** In about so many parts the gradient is sent, each while the rest is computed. */
const PARTS = 5

/** What the host gives for a step, and the step's calls: from there to the gradient, or to the logits. */
export interface Step {
  readonly uploads: readonly Tensor[]
  readonly calls: readonly Call[]
}

/**
 * A model compiled for exactly `count` samples: the calls that bring parameters in, and those of a step.
 *
 * cuDNN computes convolutions; all between two of them is one kernel (bias, ReLU, dropout, type and padding), and one on
 * the way back. Where ReLU is among it, its output tells what passed, and the mask is not needed again.
 *
 * In bf16, what lies between the input of the first convolution and that of the last is bf16; parameters, their
 * gradients, the last convolution and what follows it are float32 (TF32 in its products). cuDNN gives a kernel's gradient
 * in the type of its factors only, so these are widened to float32 first and multiplied as TF32, which holds bf16 exactly:
 * a gradient is the float32 sum of exact products.
 */
export class Plan {
  /** After new parameters. */
  readonly load: readonly Call[]
  /** By whether images are given as they are or made of stored ones, and masks given or drawn from their keys. */
  readonly steps: Record<'given' | 'stored', Record<'given' | 'drawn', Step>>
  /** Bytes of the device's memory, and of its block of inputs, which may be there more than once. */
  readonly bytes: number
  readonly inputBytes: number

  readonly parameters: Tensor
  // Inputs, as the engine takes them.
  readonly images: Tensor
  readonly pixels: Tensor
  readonly table: Tensor
  readonly variations: Tensor
  readonly labels: Tensor
  readonly masks: readonly Tensor[]
  readonly keys: Tensor
  // What it reads: float32 [count, classes], float64 [count, (loss, correct)], float32 in the `trainedLayout`.
  readonly logits: Tensor
  readonly results: Tensor
  readonly gradient: Tensor

  readonly #arena = new Arena(ALIGNMENT)
  readonly #inputArena = new Arena(ALIGNMENT)
  readonly #choose: Choose
  readonly #layers: readonly LayerSpec[]
  readonly #inputs: readonly Shape[]
  readonly #outputs: readonly Shape[]
  readonly #views: readonly ParameterView[]
  readonly #trained: readonly ParameterView[]
  readonly #count: number
  readonly #precision: 'float32' | 'tf32' | 'bf16'
  readonly #lastConvolution: number
  /** The lowest layer that is trained; gradients go no further. Infinity where the plan only predicts. */
  readonly #lowestTrained: number
  readonly #load: Call[] = []
  readonly #step: Call[] = []
  readonly #masks: { readonly tensor: Tensor; readonly rate: number }[] = []
  /** How to add each stage's calls on the way back, in the order of the layers. */
  readonly #backwards: (() => void)[] = []
  #clock = 0
  /** Of the gradient, what is behind this was sent to the host. */
  #unsent: number
  /** What the next layer takes, and its gradient on the way back. */
  #current: Activations
  #back: Tensor

  /** Throws E_ENGINE_GPU where cuDNN cannot do a convolution or the leaf is too large. */
  constructor(
    choose: Choose,
    model: ModelSpec,
    count: number,
    precision: 'float32' | 'tf32' | 'bf16',
    purpose: 'train' | 'predict',
  ) {
    this.#choose = choose
    this.#layers = model.layers
    this.#inputs = inputShapes(model)
    this.#outputs = outputShapes(model)
    this.#count = count
    this.#precision = precision
    const { size, views } = parameterLayout(model)
    const trained = trainedLayout(model)
    this.#views = views
    this.#trained = trained.views
    this.#lowestTrained = purpose === 'train' ? trained.views[0].layer : Infinity
    this.#lastConvolution = model.layers.findLastIndex(({ kind }) => kind === 'conv2d')

    this.parameters = this.#keep(this.#tensor('parameters', 'float32', size))
    const [height, width, channels] = model.input
    this.images = this.#input('images', 'float32', count * volume(model.input))
    this.pixels = this.#input('pixels', 'uint8', this.images.size)
    this.table = this.#input('table', 'float32', 256 * channels)
    this.variations = this.#input('variations', 'int32', 3 * count)
    this.labels = this.#input('labels', 'int32', count)
    this.results = this.#tensor('results', 'float64', 2 * count)
    this.gradient = this.#tensor('gradient', 'float32', trained.size)
    this.#unsent = trained.size
    this.#add(this.#load, { kind: 'upload', tensor: this.parameters })

    this.#current = { tensor: this.images, type: 'float32', shape: model.input, rim: noRim }
    for (let at = this.#addElementwise(0); at < model.layers.length;) {
      const layer = model.layers[at]
      if (layer.kind === 'conv2d') {
        const bias = this.#addConvolution(layer, at)
        at = this.#addElementwise(at + 1, bias)
      } else {
        this.#addPool(layer as Pool, at)
        at = this.#addElementwise(at + 1)
      }
    }
    this.masks = this.#masks.map(({ tensor }) => tensor)
    this.keys = this.#input('keys', 'int32', 2 * this.masks.length)
    this.logits = this.#back = this.#current.tensor
    if (purpose === 'predict') this.#send(this.logits)
    else this.#addBackward(model)
    this.load = this.#load
    const labels = purpose === 'predict' ? [] : [this.labels]
    const draw = this.#drawing()
    const step = (uploads: Tensor[], before: Call[]): Record<'given' | 'drawn', Step> => ({
      given: { uploads: [...uploads, ...labels, ...this.masks], calls: [...before, ...this.#step] },
      drawn: {
        uploads: [...uploads, ...labels, ...(draw.length > 0 ? [this.keys] : [])],
        calls: [...before, ...draw, ...this.#step],
      },
    })
    const { images, pixels, table, variations } = this
    const fill: Call = {
      kind: 'kernel',
      name: 'images',
      entry: entry('fillImages'),
      arguments: [images.size, pixels, table, variations, images, height, width, channels],
    }
    this.steps = { given: step([images], []), stored: step([pixels, table, variations], [fill]) }
    this.bytes = this.#arena.place()
    this.inputBytes = this.#inputArena.place()
  }

  #addBackward(model: ModelSpec): void {
    const { head, classes } = model
    this.#back = this.#tensor('logits/gradient', 'float32', this.#count * classes)
    this.#kernel(this.#step, 'head', entry('crossEntropy'), [
      this.#count,
      this.logits,
      this.labels,
      this.#back,
      this.results,
      classes,
      head === 'sigmoid' ? 1 : 0,
      ...targets(model),
    ])
    this.#send(this.results)
    for (const addBackward of this.#backwards.reverse()) addBackward()
    // What is sent while the calls behind it compute must lie where it is until all is done, as the gradient does anyway.
    this.#arena.touch(this.results.buffer, this.#clock)
  }

  #send(tensor: Tensor, offset = 0, size = tensor.size): void {
    this.#add(this.#step, { kind: 'download', tensor, offset, size })
  }

  /** Sends the gradient from `offset` on, all of which is there now, unless there is too little of it yet. */
  #sendGradient(offset: number): void {
    if (offset > 0 && this.#unsent - offset < this.gradient.size / PARTS) return
    this.#send(this.gradient, offset, this.#unsent - offset)
    this.#unsent = offset
  }

  /**
   * Adds ReLU and dropout from layer `at` on, after `bias`, in the type and with the padding that the layer behind them
   * takes. They may come in any order, since a mask's scale is positive; a second dropout makes a second kernel.
   *
   * @returns The first layer that is neither.
   */
  #addElementwise(at: number, bias?: Argument): number {
    do {
      const first = at
      let relu = false
      let rate: number | undefined
      for (; at < this.#layers.length; at++) {
        const layer = this.#layers[at]
        if (layer.kind === 'relu') relu = true
        else if (layer.kind !== 'dropout') break
        else if (this.#lowestTrained === Infinity) continue
        else if (rate === undefined) rate = layer.rate
        else break
      }
      this.#addActivate(first, at, relu, rate, bias)
      bias = undefined
    } while (this.#layers[at]?.kind === 'dropout')
    return at
  }

  #addActivate(
    first: number,
    end: number,
    relu: boolean,
    rate: number | undefined,
    bias: Argument | undefined,
  ): void {
    const from = this.#current
    const [height, width, channels] = from.shape
    const { type, rim } = this.#wanted(end, from.type)
    const { above, left, below, right } = rim
    const [down, across] = [above + height + below, left + width + right]
    const name = `activate${end}`
    const same = type === from.type && down === height && across === width
    if (bias === undefined && !relu && rate === undefined && same) return
    const scale = rate === undefined ? 1 : 1 / (1 - rate)
    const mask = rate === undefined ? null : this.#mask(this.#count * volume(from.shape), rate)
    // Nobody needs what a convolution gives before its bias. What else there is may be an output that tells a ReLU's gradient.
    const tensor =
      same && bias !== undefined
        ? from.tensor
        : this.#tensor(name, type, this.#count * down * across * channels)
    const pack = channels % PACK === 0 ? PACK : 1
    const places = (rows: number, columns: number) => (this.#count * rows * columns * channels) / pack
    const geometry = [height, width, above, left, below, right, channels / pack]
    this.#kernel(this.#step, name, entry('activate', from.type, type, pack), [
      places(down, across),
      ...[from.tensor, tensor, bias ?? null, mask, scale, relu ? 1 : 0],
      ...geometry,
    ])
    this.#current = { tensor, type, shape: from.shape, rim }

    if (first <= this.#lowestTrained || (!relu && rate === undefined && same)) return
    this.#backwards.push(() => {
      const gradient = this.#back
      const to = same ? gradient : this.#tensor(`${name}/gradient`, from.type, places(height, width) * pack)
      this.#kernel(this.#step, `${name}/gradient`, entry('activateGradient', type, from.type, pack), [
        places(height, width),
        ...[gradient, to, relu ? tensor : null, relu ? null : mask, scale],
        ...geometry,
      ])
      this.#back = to
    })
  }

  /** The type and rim of what layer `index` takes: a convolution has wishes, all else takes what comes. */
  #wanted(index: number, type: FloatType): { type: FloatType; rim: Rim } {
    const layer = this.#layers[index]
    if (layer?.kind !== 'conv2d') return { type, rim: noRim }
    const bf16 =
      this.#precision === 'bf16' && index !== this.#lastConvolution && this.#takesBf16(layer, index)
    return { type: bf16 ? 'bf16' : 'float32', rim: zerosOf(layer, this.#inputs[index]).rim }
  }

  /** Whether cuDNN has a convolution in bf16. Where it has not (of 3 channels, say), it is computed in TF32, as the last is. */
  #takesBf16(layer: Convolving, index: number): boolean {
    const passes = index > this.#lowestTrained ? (['forward', 'image'] as const) : (['forward'] as const)
    try {
      for (const pass of passes) this.#choose({ ...this.#convolution(layer, index, 'bf16'), pass })
      return true
    } catch (error) {
      if (error instanceof ConvoyError && error.code === 'E_ENGINE_GPU') return false
      throw error
    }
  }

  /** A convolution layer as cuDNN is told of it, its image with the rim that `#wanted` says. */
  #convolution(layer: Convolving, index: number, type: FloatType): Omit<Convolution, 'pass'> {
    const [height, width, channels] = this.#inputs[index]
    const [outputHeight, outputWidth, filters] = this.#outputs[index]
    const { padding, rim } = zerosOf(layer, this.#inputs[index])
    return {
      type,
      tf32: this.#precision !== 'float32',
      image: [this.#count, rim.above + height + rim.below, rim.left + width + rim.right, channels],
      kernel: [filters, ...layer.kernel, channels],
      output: [this.#count, outputHeight, outputWidth, filters],
      padding,
      stride: layer.stride,
    }
  }

  #mask(size: number, rate: number): Tensor {
    const tensor = this.#input(`mask${this.#masks.length}`, 'uint8', size)
    this.#masks.push({ tensor, rate })
    return tensor
  }

  #drawing(): Call[] {
    return this.#masks.map(({ tensor, rate }, i): Call => {
      const { bits, dropped } = maskRule(rate)
      const threads = Math.ceil((tensor.size * bits) / 64)
      const keys = { tensor: this.keys, offset: 2 * i }
      const args = [threads, keys, tensor, tensor.size, bits, dropped] as const
      return { kind: 'kernel', name: tensor.name, entry: entry('drawMask'), arguments: args }
    })
  }

  /** Adds a convolution without its bias. Returns where that is. */
  #addConvolution(layer: Convolving, index: number): Argument {
    const { name, filters } = layer
    const image = this.#current
    const { type } = image
    const convolution = this.#convolution(layer, index, type)
    const [kernelView, biasView] = this.#views.filter((view) => view.layer === index)
    const perFilter = kernelView.size / filters
    const kernel = this.#keep(this.#tensor(`${name}/kernel`, type, kernelView.size))
    this.#kernel(this.#load, `${name}/kernel`, entry('transpose', 'float32', type), [
      kernelView.size,
      { tensor: this.parameters, offset: kernelView.offset },
      kernel,
      perFilter,
      filters,
    ])
    const output = this.#tensor(name, type, this.#count * volume(this.#outputs[index]))
    this.#convolve(name, { ...convolution, pass: 'forward' }, image.tensor, kernel, output)
    this.#current = { tensor: output, type, shape: this.#outputs[index], rim: noRim }
    const bias = { tensor: this.parameters, offset: biasView.offset }
    if (index < this.#lowestTrained) return bias

    this.#backwards.push(() => {
      const gradient = this.#back
      if (!layer.frozen) {
        const [kernelPlace, biasPlace] = this.#trained.filter((view) => view.layer === index)
        this.#addSum(`${name}/bias`, gradient, type, output.size / filters, filters, biasPlace.offset)
        const wideImage = this.#widen(`${name}/image`, image.tensor, type)
        const wideGradient = this.#widen(`${name}/output`, gradient, type)
        const byKernel = this.#tensor(`${name}/kernel gradient`, 'float32', kernelView.size)
        const kernelPass = { ...convolution, type: 'float32', pass: 'kernel' } as const
        this.#convolve(`${name}/by kernel`, kernelPass, wideImage, byKernel, wideGradient)
        this.#kernel(this.#step, `${name}/kernel gradient`, entry('transpose', 'float32', 'float32'), [
          kernelView.size,
          byKernel,
          { tensor: this.gradient, offset: kernelPlace.offset },
          filters,
          perFilter,
        ])
        this.#sendGradient(kernelPlace.offset)
      }
      if (index > this.#lowestTrained) {
        this.#back = this.#tensor(`${name}/image gradient`, type, image.tensor.size)
        this.#convolve(`${name}/by image`, { ...convolution, pass: 'image' }, this.#back, kernel, gradient)
      }
    })
    return bias
  }

  #convolve(name: string, convolution: Convolution, image: Tensor, kernel: Tensor, output: Tensor): void {
    const { algorithm, workspace } = this.#choose(convolution)
    const scratch = workspace > 0 ? this.#reserve(`${name}/workspace`, 'uint8', workspace) : undefined
    this.#add(
      this.#step,
      { kind: 'convolution', name, convolution, algorithm, image, kernel, output, workspace: scratch },
      image,
      kernel,
      output,
      scratch,
    )
  }

  /** The same numbers in float32. */
  #widen(name: string, tensor: Tensor, type: FloatType): Tensor {
    if (type === 'float32') return tensor
    const wide = this.#tensor(`${name} in float32`, 'float32', tensor.size)
    const pack = tensor.size % PACK === 0 ? PACK : 1
    const packs = tensor.size / pack
    this.#kernel(this.#step, wide.name, entry('activate', type, 'float32', pack), [
      packs,
      ...[tensor, wide, null, null, 1, 0],
      ...[1, 1, 0, 0, 0, 0, packs],
    ])
    return wide
  }

  /** Adds the sum of [rows, columns] over the rows, to the gradient at `offset`. */
  #addSum(
    name: string,
    tensor: Tensor,
    type: FloatType,
    rows: number,
    columns: number,
    offset: number,
  ): void {
    let from = { tensor, type, rows }
    while (from.rows > 0) {
      const parts = Math.ceil(from.rows / ROWS)
      const to = parts === 1 ? this.gradient : this.#tensor(`${name} of ${parts}`, 'float32', parts * columns)
      this.#kernel(this.#step, name, entry('sumRows', from.type), [
        parts * columns,
        from.tensor,
        { tensor: to, offset: parts === 1 ? offset : 0 },
        from.rows,
        columns,
      ])
      if (parts === 1) return
      from = { tensor: to, type: 'float32', rows: parts }
    }
  }

  #addPool(layer: Pool, index: number): void {
    const { tensor: from, type, shape } = this.#current
    const [height, width, channels] = shape
    const output = this.#outputs[index]
    const name = `${layer.kind}${index}`
    const window = windowOf(layer, shape)
    const [rows, columns] = slides(shape, window)
    const to = this.#tensor(name, type, this.#count * volume(output))
    const trained = index > this.#lowestTrained
    const taken = layer.kind === 'maxPool' && trained ? this.#tensor(`${name}/taken`, 'int32', to.size) : null
    const geometry = [
      ...[taken, poolings[layer.kind], height, width, channels],
      ...[output[0], output[1], ...window.size, ...window.stride, rows.before, columns.before],
    ]
    this.#kernel(this.#step, name, entry('pool', type), [to.size, from, to, ...geometry])
    this.#current = { tensor: to, type, shape: output, rim: noRim }
    if (!trained) return
    this.#backwards.push(() => {
      const gradient = this.#back
      this.#back = this.#tensor(`${name}/gradient`, type, from.size)
      this.#kernel(this.#step, `${name}/gradient`, entry('poolGradient', type), [
        ...([from.size, gradient, this.#back] as const),
        ...geometry,
      ])
    })
  }

  /** A tensor that lives from its first to its last call. */
  #tensor(name: string, type: Tensor['type'], size: number): Tensor {
    this.#checkSize(name, size)
    return this.#reserve(name, type, size)
  }

  /** A tensor of the block of inputs. */
  #input(name: string, type: Tensor['type'], size: number): Tensor {
    this.#checkSize(name, size)
    const tensor = { name, type, size, buffer: this.#inputArena.reserve(bytesOf[type] * size), input: true }
    this.#inputArena.keep(tensor.buffer)
    return tensor
  }

  #reserve(name: string, type: Tensor['type'], size: number): Tensor {
    return { name, type, size, buffer: this.#arena.reserve(bytesOf[type] * size), input: false }
  }

  #checkSize(name: string, size: number): void {
    if (size < MOST) return
    throw new ConvoyError(
      'E_ENGINE_GPU',
      `a leaf of ${this.#count} samples is too large for a GPU: ${name} would have ${size} numbers`,
      'Use a smaller --micro-batch.',
    )
  }

  /** Lets a tensor live for ever. */
  #keep(tensor: Tensor): Tensor {
    this.#arena.keep(tensor.buffer)
    return tensor
  }

  #kernel(list: Call[], name: string, entry: string, args: readonly [number, ...Argument[]]): void {
    const tensors = args.map((argument) =>
      typeof argument === 'number' || argument === null
        ? undefined
        : 'tensor' in argument
          ? argument.tensor
          : argument,
    )
    this.#add(list, { kind: 'kernel', name, entry, arguments: args }, ...tensors)
  }

  #add(list: Call[], call: Call, ...tensors: readonly (Tensor | undefined)[]): void {
    this.#clock++
    if (call.kind === 'upload' || call.kind === 'download') tensors = [call.tensor]
    for (const tensor of tensors) if (tensor && !tensor.input) this.#arena.touch(tensor.buffer, this.#clock)
    list.push(call)
  }
}
