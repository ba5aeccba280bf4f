import { createEngine, Masks, type EngineChoice } from '@convoy/engine'
import { buildModel, initialise } from '@convoy/model'

/** A request to the measuring process, and its answer. */
export interface Measure {
  readonly engine: EngineChoice
  readonly leaf: number
  readonly seconds: number
  /** Filters as a multiple of All-CNN-C's; 1 unless told. */
  readonly width?: number
  /** Forward pass only. */
  readonly forward?: boolean
}
export interface Measured {
  readonly imagesPerSecond: number
  readonly description: string
}

const cifar = { input: [32, 32, 3], classes: 10 } as const

/**
 * Measures an engine on All-CNN-C in a process of its own: parameters loaded once for every four leaves, masks drawn, the
 * gradient copied out, all counted, as in training.
 */
async function measure({ engine: choice, leaf, seconds, width = 1, forward }: Measure): Promise<Measured> {
  const engine = await createEngine(choice)
  const model = buildModel('all-cnn-c', { ...cifar, width })
  const compiled = await engine.compile(model, leaf)
  const masks = new Masks(model, leaf)
  const parameters = initialise(model, 'heUniform', 1)
  const gradient = new Float32Array(parameters.length)
  const images = Float32Array.from({ length: leaf * 3072 }, (_, i) => Math.sin(i))
  const labels = Int32Array.from({ length: leaf }, (_, i) => i % 10)
  const logits = new Float32Array(leaf * 10)
  let steps = 0
  const step = () => {
    if (steps % 4 === 0) compiled.load(parameters)
    if (forward) compiled.predict(images, leaf, logits)
    else {
      masks.fill({ seed: 1, epoch: 0, step: steps, leaf: 0 }, leaf)
      compiled.gradient({ count: leaf, images, labels }, masks, gradient)
    }
    steps++
  }
  step()
  steps = 0
  const start = performance.now()
  while (performance.now() - start < 1000 * seconds || steps < 1) step()
  const imagesPerSecond = (1000 * steps * leaf) / (performance.now() - start)
  engine.dispose()
  return { imagesPerSecond, description: engine.description }
}

process.on('message', (request: Measure) => {
  measure(request).then(
    (answer) => process.send!(answer),
    (error: unknown) => process.send!({ error: error instanceof Error ? error.message : String(error) }),
  )
})
