import * as tf from '@tensorflow/tfjs-core'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { differences } from '@convoy/engine'
import { prepareBackend } from './backend.ts'

const small = (max: number) => fc.integer({ min: 1, max })
/** Convolutions whose windows fit their input. */
const geometries = fc
  .record({
    count: small(5),
    input: fc.tuple(small(13), small(13), small(5)),
    kernel: fc.tuple(small(5), small(5)),
    filters: small(9),
    strides: fc.tuple(small(4), small(4)),
    pad: fc.constantFrom('same' as const, 'valid' as const),
    seed: fc.nat(1e6),
  })
  .filter(({ input, kernel, pad }) => pad === 'same' || (kernel[0] <= input[0] && kernel[1] <= input[1]))

describe('the gradients of a convolution on wasm', () => {
  beforeAll(async () => {
    await prepareBackend('cpu', false)
    await prepareBackend('wasm', false)
  })

  it('are those of the cpu backend, whatever its geometry', () => {
    fc.assert(
      fc.property(geometries, ({ count, input, kernel, filters, strides, pad, seed }) => {
        const filterShape = [...kernel, input[2], filters]
        const inputShape = [count, ...input]
        const attributes = { strides, pad, dataFormat: 'NHWC' }
        const draw = (shape: number[], offset: number) =>
          Array.from(tf.randomUniform(shape, -1, 1, 'float32', seed + offset).dataSync())
        const on = (backend: string, values: number[][]) => {
          void tf.setBackend(backend)
          return tf.tidy(() => {
            const [x, filter, dy] = [inputShape, filterShape, dyShape].map((shape, i) =>
              tf.tensor(values[i], shape),
            )
            const run = (name: string, inputs: tf.NamedTensorMap, more: object) =>
              tf.engine().runKernel<tf.Tensor>(name, inputs, { ...attributes, ...more })
            return [
              run('Conv2DBackpropFilter', { x, dy }, { filterShape }).dataSync(),
              run('Conv2DBackpropInput', { dy, filter }, { inputShape }).dataSync(),
            ]
          })
        }
        const { outShape: dyShape } = tf.backend_util.computeConv2DInfo(
          inputShape as [number, number, number, number],
          filterShape as [number, number, number, number],
          strides,
          1,
          pad,
        )
        const values = tf.tidy(() => [inputShape, filterShape, dyShape].map(draw))
        const expected = on('cpu', values)
        on('wasm', values).forEach((gradient, i) => {
          expect(gradient).toHaveLength(expected[i].length)
          // Where padding alone is convolved, all are 0.
          const { relative } = differences([...gradient, 1e-3], [...expected[i], 1e-3])
          expect(relative).toBeLessThan(1e-5)
        })
      }),
      { numRuns: 200 },
    )
  })

  it('sum over more places than one convolution takes', () => {
    const shape = [3, 50, 50, 2]
    const values = Array.from({ length: 3 * 50 * 50 * 2 }, (_, i) => Math.sin(i * i))
    const gradients = ['cpu', 'wasm'].map((backend) => {
      void tf.setBackend(backend)
      return tf.tidy(() => {
        const [x, dy] = [tf.tensor(values, shape), tf.tensor(values.toReversed(), shape)]
        const attributes = { strides: 1, pad: 'same', dataFormat: 'NHWC', filterShape: [3, 3, 2, 2] }
        return tf.engine().runKernel<tf.Tensor>('Conv2DBackpropFilter', { x, dy }, attributes).dataSync()
      })
    })
    expect(differences(gradients[1], gradients[0]).relative).toBeLessThan(1e-5)
  })
})

describe('the gradient of max-pooling on wasm', () => {
  beforeAll(async () => {
    await prepareBackend('cpu', false)
    await prepareBackend('wasm', false)
  })

  it('is that of the cpu backend, whatever the signs and the geometry', () => {
    fc.assert(
      fc.property(geometries, fc.double({ min: -1, max: 1, noNaN: true }), (drawn, middle) => {
        const { count, input, kernel: filterSize, strides, pad, seed } = drawn
        const shape: [number, number, number, number] = [count, ...input]
        const { outShape } = tf.backend_util.computePool2DInfo(shape, filterSize, strides, 1, pad)
        // Whole sixteenths: windows have equal pixels, and sums have no rounding.
        const draw = (of: number[], offset: number, around: number) =>
          Array.from(
            tf.randomUniform(of, -1, 1, 'float32', seed + offset).dataSync(),
            (value) => Math.round(16 * (value + around)) / 16,
          )
        const on = (backend: string, values: number[][]) => {
          void tf.setBackend(backend)
          return tf.tidy(() => {
            const [x, dy] = [tf.tensor(values[0], shape), tf.tensor(values[1], outShape)]
            const output = tf.maxPool(x as tf.Tensor4D, filterSize, strides, pad)
            const attributes = { filterSize, strides, pad }
            return tf
              .engine()
              .runKernel<tf.Tensor>('MaxPoolGrad', { dy, input: x, output }, attributes)
              .dataSync()
          })
        }
        void tf.setBackend('cpu')
        const values = tf.tidy(() => [draw(shape, 0, middle), draw(outShape, 1, 0)])
        expect(on('wasm', values)).toEqual(on('cpu', values))
      }),
      { numRuns: 60 },
    )
  })
})
