import { Purpose, RandomStream } from '@convoy/random'
import { parameterLayout } from './layout.ts'
import type { ModelSpec } from './spec.ts'

export type Initialisation = 'heUniform' | 'heNormal' | 'glorotUniform' | 'zeros'

/**
 * The parameters that a run starts from: kernels drawn from the seed, biases 0.
 *
 * `heUniform` (the default): uniform within ±sqrt(6 / fan_in), and `heNormal`: normal with deviation sqrt(2 / fan_in),
 * both of variance 2 / fan_in, which keeps a ReLU network's activations from fading (He et al., "Delving Deep into
 * Rectifiers", 2015; Keras `he_uniform`, and `he_normal` without its truncation). `glorotUniform`: uniform within
 * ±sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010). The uniform ones use only exactly rounded operations, so they
 * are the same bits on every machine; the normal one leans on the platform's log and cos.
 *
 * @returns Flat float32 in the model's layout.
 */
export function initialise(model: ModelSpec, scheme: Initialisation, seed: number): Float32Array {
  const { size, views } = parameterLayout(model)
  const parameters = new Float32Array(size)
  views.forEach((view, index) => {
    if (view.role === 'bias' || scheme === 'zeros') return
    const [height, width, input, output] = view.shape as [number, number, number, number]
    const fanIn = height * width * input
    const fanOut = height * width * output
    const random = new RandomStream(seed, Purpose.initialisation, index)
    const limit = Math.sqrt(6 / (scheme === 'glorotUniform' ? fanIn + fanOut : fanIn))
    const deviation = Math.sqrt(2 / fanIn)
    for (let i = view.offset; i < view.offset + view.size; i++) {
      parameters[i] = scheme === 'heNormal' ? deviation * random.normal() : limit * (2 * random.uniform() - 1)
    }
  })
  return parameters
}
