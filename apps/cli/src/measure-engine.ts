import { Masks, type EngineChoice } from '@convoy/engine'
import { createEngine } from '@convoy/engines'
import { buildModel, initialise, trainedLayout, volume, type ModelSpec } from '@convoy/model'

/** A request to the measuring process, and its answer. */
export interface Measure {
  readonly engine: EngineChoice
  readonly leaf: number
  readonly seconds: number
  /** All-CNN-C for CIFAR-10 unless told. */
  readonly model?: ModelSpec
  /** Forward pass only. */
  readonly forward?: boolean
}
export interface Measured {
  readonly imagesPerSecond: number
  /** Seconds that each leaf took. */
  readonly leafSeconds: readonly number[]
  readonly description: string
}

const allCnn = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10 })

/**
 * Measures an engine on a model in a process of its own: parameters loaded once for every four leaves, masks drawn, the
 * gradient copied out, all counted, as in training.
 */
export async function measure({
  engine: choice,
  leaf,
  seconds,
  model = allCnn,
  forward,
}: Measure): Promise<Measured> {
  const engine = await createEngine(choice)
  const compiled = await engine.compile(model, leaf)
  const masks = new Masks(model, leaf)
  const parameters = initialise(model, 'heUniform', 1)
  const gradient = new Float32Array(trainedLayout(model).size)
  const images = Float32Array.from({ length: leaf * volume(model.input) }, (_, i) => Math.sin(i))
  const labels = Int32Array.from({ length: leaf }, (_, i) => i % model.classes)
  const logits = new Float32Array(leaf * model.classes)
  let steps = 0
  const step = async () => {
    if (steps % 4 === 0) compiled.load(parameters)
    if (forward) await compiled.predict(images, leaf, logits)
    else {
      masks.fill({ seed: 1, epoch: 0, step: steps, leaf: 0 }, leaf)
      await compiled.gradient({ count: leaf, images, labels }, masks, gradient)
    }
    steps++
  }
  await step()
  steps = 0
  const leafSeconds: number[] = []
  const start = performance.now()
  for (let now = start; now - start < 1000 * seconds || steps < 1;) {
    await step()
    const before = now
    now = performance.now()
    leafSeconds.push((now - before) / 1000)
  }
  const imagesPerSecond = (1000 * steps * leaf) / (performance.now() - start)
  engine.dispose()
  return { imagesPerSecond, leafSeconds, description: engine.description }
}

process.on('message', (request: Measure) => {
  measure(request).then(
    (answer) => process.send!(answer),
    (error: unknown) => process.send!({ error: error instanceof Error ? error.message : String(error) }),
  )
})
