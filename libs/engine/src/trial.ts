import { ConvoyError } from '@convoy/errors'
import type { ModelSpec } from '@convoy/model'
import type { Engine } from './engine.ts'
import { differences, drawLeaf, referenceGradient } from './reference.ts'

/** Small, and with all that All-CNN-C has. Rounding turns few ReLUs over, since it is not deep. */
const trial: ModelSpec = {
  name: 'trial',
  input: [12, 10, 3],
  layers: [
    { kind: 'dropout', rate: 0.2 },
    { kind: 'conv2d', name: 'a', filters: 32, kernel: [3, 3], stride: [1, 1], padding: 'same' },
    { kind: 'relu' },
    { kind: 'conv2d', name: 'b', filters: 48, kernel: [3, 3], stride: [2, 2], padding: 'same' },
    { kind: 'relu' },
    { kind: 'dropout', rate: 0.5 },
    { kind: 'conv2d', name: 'c', filters: 10, kernel: [1, 1], stride: [1, 1], padding: 'same' },
    { kind: 'globalAveragePool' },
  ],
  head: 'softmax',
  classes: 10,
}

/**
 * Has an engine on a GPU, whose driver and model nobody here may have seen, compute a gradient, and holds it against the float64
 * reference, and against itself when it is computed again. Throws E_ENGINE_GPU where it is wrong or not the same bits.
 *
 * @param tolerance How far off a right gradient may be, relative. A wrong one is off by tenths.
 */
export async function checkGradient(engine: Engine, tolerance: number): Promise<void> {
  const { parameters, batch, masks } = drawLeaf(trial, 8, 1)
  const expected = referenceGradient(trial, parameters, batch, masks)
  const compiled = await engine.compile(trial, batch.count)
  compiled.load(parameters)
  const computed: { gradient: Float32Array; loss: number }[] = []
  for (let round = 0; round < 3; round++) {
    const gradient = new Float32Array(parameters.length)
    const { loss } = await compiled.gradient(batch, masks, gradient)
    computed.push({ gradient, loss })
  }
  compiled.dispose()
  const [first, ...others] = computed
  const off = differences(first.gradient, expected.gradient).relative
  const lossOff = Math.abs(first.loss / expected.loss - 1)
  const same = others.every(
    ({ gradient, loss }) => loss === first.loss && gradient.every((value, i) => value === first.gradient[i]),
  )
  if (off <= tolerance && lossOff <= tolerance && same) return
  throw new ConvoyError(
    'E_ENGINE_GPU',
    same
      ? `the GPU computes a wrong gradient: it is ${off.toExponential(1)} off, the loss ${lossOff.toExponential(1)}, and ${tolerance} is allowed`
      : 'the GPU computes another gradient each time',
    'Use another --engine, and report this with what `convoy doctor` prints.',
  )
}
