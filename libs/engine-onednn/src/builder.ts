import {
  inputShapes,
  outputShapes,
  parameterLayout,
  trainedLayout,
  windowOf,
  type LayerSpec,
  type ModelSpec,
  type ParameterView,
  type Shape,
} from '@convoy/model'
import {
  geometry,
  type DataType,
  type Description,
  type PoolingAlgorithm,
  type WindowGeometry,
} from './calls.ts'
import { Program, type StepList, type Tensor } from './program.ts'
import type { PrimitiveDescriptor } from './scope.ts'

type Convolution = Extract<LayerSpec, { kind: 'conv2d' }>
type Pool = Extract<LayerSpec, { kind: 'maxPool' | 'averagePool' | 'sumPool' | 'globalAveragePool' }>

const poolings: Record<Pool['kind'], PoolingAlgorithm> = {
  maxPool: 'max',
  averagePool: 'averageWithoutPadding',
  sumPool: 'averageWithPadding',
  globalAveragePool: 'averageWithoutPadding',
}

/** A convolution's kernel. */
interface Kernel {
  /** OIHW. */
  readonly shape: readonly number[]
  /** As parameters and gradients lie in `memory`. */
  readonly hwio: Description
  readonly memory: Float32Array
  /** The kernel in a layout that is computed with, to be made by a step when parameters are loaded. */
  readonly lay: (step: string, wanted: Description) => Tensor
}

/** What the gradients of a convolution take of its forward step. */
interface Convolved {
  readonly name: string
  readonly index: number
  readonly window: WindowGeometry
  readonly source: Description
  readonly weights: Description
  readonly bias: Tensor
  readonly kernel: Kernel
  readonly forward: PrimitiveDescriptor
  readonly taken: Tensor
}

const isKernelOf = (index: number) => (view: ParameterView) => view.layer === index && view.role === 'kernel'
const isBiasOf = (index: number) => (view: ParameterView) => view.layer === index && view.role === 'bias'

/** A tensor of one parameter or of its gradient. */
export interface Parameter {
  readonly view: ParameterView
  readonly tensor: Tensor
}

/** Where a kernel's gradient goes. */
export interface KernelGradient extends Parameter {
  /** How many backward steps are done when it is there, and its bias's with it. */
  readonly after: number
}

/**
 * Turns a model's layers into the steps of a program: those that run when parameters are loaded, forward, in
 * prediction, and backward. What these are is said at `Plan`.
 */
export class PlanBuilder {
  readonly program: Program
  /** For each convolution, what brings its kernel into the layouts that are computed with. */
  readonly loads: StepList[] = []
  readonly forward: StepList = []
  readonly backward: StepList = []
  readonly biases: Parameter[] = []
  readonly biasGradients: Parameter[] = []
  readonly kernelGradients: KernelGradient[] = []
  readonly masks: Tensor[] = []
  readonly images: Tensor
  readonly logits: Tensor
  readonly logitGradients: Tensor

  readonly #count: number
  readonly #precision: 'float32' | 'bf16'
  readonly #parameters: Float32Array
  readonly #views: readonly ParameterView[]
  /** Where gradients go in the flat gradient. */
  readonly #trained: readonly ParameterView[]
  readonly #firstConvolution: number
  /** The lowest layer that is trained; gradients go no further. Infinity where the plan only predicts. */
  readonly #lowestTrained: number
  readonly #lastConvolution: number
  /** How to add each layer's backward steps, in the order of the layers. */
  readonly #backwards: (() => void)[] = []
  /** The tensor that the next layer takes, and its gradient on the way back. */
  #current: Tensor
  #gradient: Tensor

  /**
   * Adds all steps to a new program. The caller finishes it, or disposes of it where this throws.
   *
   * @param purpose To predict, there is no dropout and nothing is kept for gradients.
   */
  constructor(
    program: Program,
    model: ModelSpec,
    count: number,
    precision: 'float32' | 'bf16',
    parameters: Float32Array,
    purpose: 'train' | 'predict',
  ) {
    this.program = program
    this.#count = count
    this.#precision = precision
    this.#parameters = parameters
    this.#views = parameterLayout(model).views
    this.#firstConvolution = model.layers.findIndex((layer) => layer.kind === 'conv2d')
    this.#trained = trainedLayout(model).views
    this.#lowestTrained = purpose === 'train' ? this.#trained[0].layer : Infinity
    this.#lastConvolution = model.layers.findLastIndex((layer) => layer.kind === 'conv2d')

    this.images = program.tensor(this.#plain(model.input, 'float32'))
    this.#current = this.#gradient = this.images
    program.touchFirst(this.images)
    const inputs = inputShapes(model)
    const outputs = outputShapes(model)
    model.layers.forEach((_, i) => this.#addLayer(model, i, inputs[i], outputs[i]))
    const plain = this.#plain(outputs.at(-1)!, 'float32')
    this.logits = this.#convert(this.forward, 'logits', this.#current, plain)
    program.touch(this.logits)
    this.#gradient = this.logitGradients = purpose === 'train' ? program.tensor(plain) : this.logits
    program.touch(this.#gradient)
    for (const addBackward of this.#backwards.reverse()) addBackward()
    // JavaScript reads these at the end.
    for (const { tensor } of this.biasGradients) program.touch(tensor)
  }

  #addLayer(model: ModelSpec, index: number, input: Shape, output: Shape): void {
    const layer = model.layers[index]
    // Nothing before the lowest trained layer has gradients to go to.
    const trained = index > this.#lowestTrained
    const followsConvolution = model.layers[index - 1]?.kind === 'conv2d'
    switch (layer.kind) {
      case 'conv2d':
        return this.#addConvolution(layer, index, model.layers[index + 1]?.kind === 'relu', input, output)
      case 'relu':
        return followsConvolution ? undefined : this.#addRelu(`relu${index}`, trained)
      case 'dropout':
        if (this.#lowestTrained === Infinity) return
        return this.#addDropout(`dropout${index}`, layer.rate, input, trained)
      case 'maxPool':
      case 'averagePool':
      case 'sumPool':
      case 'globalAveragePool':
        return this.#addPool(`${layer.kind}${index}`, layer, index, input, output, trained)
    }
  }

  #addConvolution(layer: Convolution, index: number, relu: boolean, input: Shape, output: Shape): void {
    const { scope } = this.program
    const { name } = layer
    const window = geometry(windowOf(layer, input), input)
    const type = this.#precision
    const source = this.#free(input, type)
    const destination = this.#free(output, index === this.#lastConvolution ? 'float32' : type)
    const kernel = this.#addKernel(layer, index, input)
    const weights = scope.describe(kernel.shape, type, 'any')
    const bias = this.program.tensor(scope.describe([layer.filters], 'float32', [1]))
    this.program.keep(bias)
    this.biases.push({ view: this.#views.find(isBiasOf(index))!, tensor: bias })

    const attributes = relu ? scope.attributes({ kind: 'relu' }) : scope.attributes()
    const forward = scope.descriptor(
      scope.calls.convolution(
        scope.engine,
        attributes,
        source,
        weights,
        bias.description,
        destination,
        window,
      ),
    )
    const taken = this.#convert(this.forward, `${name}/source`, this.#current, forward.query('source'))
    const out = this.program.tensor(forward.query('destination'))
    this.program.add(this.forward, name, forward, [
      ['source', taken],
      ['weights', kernel.lay(`${name}/kernel`, forward.query('weights'))],
      ['bias', bias],
      ['destination', out],
    ])
    this.#current = out

    if (index < this.#lowestTrained) return
    const convolution = { name, index, window, source, weights, bias, kernel, forward, taken }
    this.#backwards.push(() => {
      if (relu) this.#addReluGradient(`${name}/relu`, out)
      const wanted = this.#free(output, type)
      if (!layer.frozen) this.#addWeightGradients(convolution, wanted)
      if (index > this.#lowestTrained) this.#addDataGradient(convolution, wanted)
    })
  }

  /** Rounds a kernel when parameters are loaded. */
  #addKernel({ name, filters, kernel }: Convolution, index: number, input: Shape): Kernel {
    const { scope } = this.program
    const [height, width] = kernel
    const shape = [filters, input[2], height, width]
    // oneDNN's order of dimensions is OIHW; the strides say that the memory is HWIO.
    const strides = [1, filters, width * input[2] * filters, input[2] * filters]
    const hwio = scope.describe(shape, 'float32', strides)
    const { offset, size } = this.#views.find(isKernelOf(index))!
    const memory = this.#parameters.subarray(offset, offset + size)
    const given = this.program.outside(hwio, memory)
    // Rounded in one sweep first: the layouts below are then gathered from half as many bytes, near at hand.
    const load: StepList = []
    this.loads.push(load)
    const rounded = scope.describe(shape, this.#precision, strides)
    const tensor = this.#convert(load, `${name}/rounded kernel`, given, rounded)
    this.program.keep(tensor)
    const lay = (step: string, wanted: Description): Tensor => {
      const laid = this.#convert(load, step, tensor, wanted)
      this.program.keep(laid)
      return laid
    }
    return { shape, hwio, memory, lay }
  }

  /** @param wanted The layout of the gradient of a convolution's output, which oneDNN may choose. */
  #addWeightGradients(convolution: Convolved, wanted: Description): void {
    const { scope } = this.program
    const { name, index, window, source, bias, kernel, forward, taken } = convolution
    const byWeights = scope.descriptor(
      scope.calls.convolutionBackwardWeights(
        scope.engine,
        scope.attributes(),
        forward.handle,
        source,
        scope.describe(kernel.shape, 'float32', 'any'),
        bias.description,
        wanted,
        window,
      ),
    )
    const kernelGradient = this.program.tensor(byWeights.query('diffWeights'))
    const biasGradient = this.program.tensor(bias.description)
    const list = this.backward
    const image = byWeights.query('source')
    const gradient = byWeights.query('diffDestination')
    this.program.add(list, `${name}/weights`, byWeights, [
      ['source', this.#convert(list, `${name}/weights source`, taken, image)],
      ['diffDestination', this.#convert(list, `${name}/weights gradient`, this.#gradient, gradient)],
      ['diffWeights', kernelGradient],
      ['diffBias', biasGradient],
    ])
    // Where the caller's gradient lies is told before each run.
    const target = this.program.outside(kernel.hwio, kernel.memory)
    this.program.copy(list, `${name}/weights out`, kernelGradient, target)
    const view = this.#trained.find(isKernelOf(index))!
    this.kernelGradients.push({ view, tensor: target, after: list.length })
    this.biasGradients.push({ view: this.#trained.find(isBiasOf(index))!, tensor: biasGradient })
  }

  /** @param wanted The layout of the gradient of a convolution's output, which oneDNN may choose. */
  #addDataGradient(convolution: Convolved, wanted: Description): void {
    const { scope } = this.program
    const { name, window, source, weights, kernel, forward } = convolution
    const byData = scope.descriptor(
      scope.calls.convolutionBackwardData(
        scope.engine,
        scope.attributes(),
        forward.handle,
        source,
        weights,
        wanted,
        window,
      ),
    )
    const gradient = this.program.tensor(byData.query('diffSource'))
    const list = this.backward
    const taken = byData.query('diffDestination')
    this.program.add(list, `${name}/data`, byData, [
      ['diffDestination', this.#convert(list, `${name}/data gradient`, this.#gradient, taken)],
      ['weights', kernel.lay(`${name}/data kernel`, byData.query('weights'))],
      ['diffSource', gradient],
    ])
    this.#gradient = gradient
  }

  #addRelu(name: string, trained: boolean): void {
    const { scope } = this.program
    const data = this.#current
    const relu = scope.descriptor(scope.calls.relu(scope.engine, scope.attributes(), data.description))
    this.program.add(this.forward, name, relu, inPlace(data))
    if (trained) this.#backwards.push(() => this.#addReluGradient(`${name}/data`, data))
  }

  #addReluGradient(name: string, data: Tensor): void {
    const { scope } = this.program
    const { calls, engine } = scope
    const hint = scope.descriptor(calls.relu(engine, scope.attributes(), data.description))
    const gradient = this.#convert(this.backward, `${name} gradient`, this.#gradient, data.description)
    const descriptor = scope.descriptor(
      calls.reluBackward(engine, scope.attributes(), hint.handle, data.description, data.description),
    )
    this.program.add(this.backward, name, descriptor, [
      ['destination', data],
      ['diffDestination', gradient],
      ['diffSource', gradient],
    ])
    this.#gradient = gradient
  }

  #addDropout(name: string, rate: number, shape: Shape, trained: boolean): void {
    const { scope } = this.program
    const { description } = this.#current
    const mask = this.program.tensor(this.#plain(shape, 'uint8'))
    this.program.touchFirst(mask)
    this.masks.push(mask)
    const laid = this.#convert(this.forward, `${name}/mask`, mask, description)
    // The mask stays 0 or 1, exact in every type; the scale is applied before rounding.
    const descriptor = scope.descriptor(
      scope.calls.multiply(
        scope.engine,
        scope.attributes({ kind: 'scale', by: 1 / (1 - rate) }),
        description,
        description,
        description,
      ),
    )
    // Not in place: oneDNN 2.6 then skips post-operations where channels are padded.
    const apply = (list: StepList, step: string, data: Tensor): Tensor => {
      const kept = this.program.tensor(description)
      this.program.add(list, step, descriptor, [
        ['source', data],
        ['source1', laid],
        ['destination', kept],
      ])
      return kept
    }
    this.#current = apply(this.forward, name, this.#current)
    if (!trained) return
    this.#backwards.push(() => {
      const gradient = this.#convert(this.backward, `${name}/gradient`, this.#gradient, description)
      this.#gradient = apply(this.backward, `${name}/data`, gradient)
    })
  }

  #addPool(name: string, layer: Pool, index: number, input: Shape, output: Shape, trained: boolean): void {
    const { scope } = this.program
    const { calls, engine } = scope
    const window = geometry(windowOf(layer, input), input)
    const algorithm = poolings[layer.kind]
    const inside = index > this.#firstConvolution && index < this.#lastConvolution
    const taken = this.#current
    const forward = scope.descriptor(
      calls.pool(
        engine,
        scope.attributes(),
        algorithm,
        taken.description,
        this.#free(output, inside ? this.#precision : 'float32'),
        window,
      ),
    )
    const out = this.program.tensor(forward.query('destination'))
    // Where each maximum was found.
    const workspace = layer.kind === 'maxPool' ? this.program.tensor(forward.query('workspace')) : undefined
    const extra = workspace ? ([['workspace', workspace]] as const) : []
    this.program.add(this.forward, name, forward, [['source', taken], ['destination', out], ...extra])
    this.#current = out
    // A sum is an average over the whole window, padding included, times its size.
    const times = layer.kind === 'sumPool' ? window.size[0] * window.size[1] : 1
    if (times !== 1) this.#addScale(this.forward, `${name}/sum`, out, times)
    if (!trained) return
    this.#backwards.push(() => {
      const { description } = out
      this.#gradient = this.#convert(this.backward, `${name}/gradient`, this.#gradient, description)
      if (times !== 1) this.#addScale(this.backward, `${name}/sum gradient`, this.#gradient, times)
      const backward = scope.descriptor(
        calls.poolBackward(
          engine,
          scope.attributes(),
          forward.handle,
          algorithm,
          taken.description,
          description,
          window,
        ),
      )
      const gradient = this.program.tensor(taken.description)
      this.program.add(this.backward, `${name}/data`, backward, [
        ['diffDestination', this.#gradient],
        ['diffSource', gradient],
        ...extra,
      ])
      this.#gradient = gradient
    })
  }

  #addScale(list: StepList, name: string, tensor: Tensor, by: number): void {
    const { scope } = this.program
    const made = scope.calls.scale(scope.engine, scope.attributes(), tensor.description, by)
    this.program.add(list, name, scope.descriptor(made), inPlace(tensor))
  }

  #convert(list: StepList, name: string, tensor: Tensor, description: Description): Tensor {
    return this.program.convert(list, name, tensor, description)
  }

  /** Activations whose layout oneDNN may choose. */
  #free([height, width, channels]: Shape, type: DataType): Description {
    return this.program.scope.describe([this.#count, channels, height, width], type, 'any')
  }

  /** Activations as JavaScript has them: NHWC. */
  #plain([height, width, channels]: Shape, type: DataType): Description {
    const strides = [height * width * channels, 1, width * channels, channels]
    return this.program.scope.describe([this.#count, channels, height, width], type, strides)
  }
}

function inPlace(tensor: Tensor) {
  return [
    ['source', tensor],
    ['destination', tensor],
  ] as const
}
