import '@tensorflow/tfjs-backend-cpu'
import * as tf from '@tensorflow/tfjs-core'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { convolve, plane, pool, relu, seen, type Plane } from './convolution.ts'

/** The horizontal-line detector. */
const detector = plane([
  [1.5, 1.5],
  [-1.5, -1.5],
])
const rowsOf = ({ height, width, values }: Plane) =>
  Array.from({ length: height }, (_, y) => [...values.subarray(y * width, (y + 1) * width)])

describe('convolve', () => {
  it('gives 0 on a flat patch and 600 on white above black', () => {
    const flat = plane([
      [200, 200],
      [200, 200],
    ])
    const line = plane([
      [200, 200],
      [0, 0],
    ])
    expect(rowsOf(convolve(flat, detector, 1, 'valid'))).toEqual([[0]])
    expect(rowsOf(convolve(line, detector, 1, 'valid'))).toEqual([[600]])
    // Black above white is as far from 0 on the other side; ReLU takes it away.
    const turned = convolve(line, plane(rowsOf(detector).reverse()), 1, 'valid')
    expect(rowsOf(turned)).toEqual([[-600]])
    expect(rowsOf(relu(turned))).toEqual([[0]])
  })

  it('pads with zeros, the odd one after', () => {
    const image = plane([
      [1, 2, 3],
      [4, 5, 6],
      [7, 8, 9],
    ])
    const ones = plane([
      [1, 1],
      [1, 1],
    ])
    expect(rowsOf(convolve(image, ones, 1, 'same'))).toEqual([
      [12, 16, 9],
      [24, 28, 15],
      [15, 17, 9],
    ])
    expect(rowsOf(convolve(image, ones, 2, 'valid'))).toEqual([[12]])
    const corner = seen(image, { size: [2, 2], stride: 1, padding: 'same' }, 2, 2)
    expect(corner.map(({ value, inside }) => (inside ? value : null))).toEqual([9, null, null, null])
    expect(convolve(ones, plane([[1, 1, 1]]), 1, 'valid').values).toHaveLength(0)
  })
})

describe('beside TensorFlow.js', () => {
  beforeAll(() => tf.setBackend('cpu'))
  const whole = (values: number[], height: number, width: number): Plane => ({
    height,
    width,
    values: Float64Array.from(values),
  })
  const planes = (largest: number) =>
    fc
      .tuple(fc.integer({ min: 1, max: largest }), fc.integer({ min: 1, max: largest }))
      .chain(([height, width]) =>
        fc
          // Whole numbers, so that float32 is exact too.
          .array(fc.integer({ min: -99, max: 99 }), { minLength: height * width, maxLength: height * width })
          .map((values) => whole(values, height, width)),
      )
  const tensor = ({ height, width, values }: Plane) =>
    tf.tensor4d(Float32Array.from(values), [1, height, width, 1])
  const settings = {
    stride: fc.integer({ min: 1, max: 4 }),
    padding: fc.constantFrom('same' as const, 'valid' as const),
  }

  it('convolves the same', () => {
    fc.assert(
      fc.property(
        planes(9),
        planes(5),
        settings.stride,
        settings.padding,
        (image, kernel, stride, padding) => {
          fc.pre(padding === 'same' || (kernel.height <= image.height && kernel.width <= image.width))
          const filter = tf.tensor4d(Float32Array.from(kernel.values), [kernel.height, kernel.width, 1, 1])
          const wanted = tf.conv2d(tensor(image), filter, stride, padding)
          const got = convolve(image, kernel, stride, padding)
          expect([got.height, got.width]).toEqual(wanted.shape.slice(1, 3))
          expect([...got.values]).toEqual([...wanted.dataSync()].map((value) => value + 0))
        },
      ),
    )
  })

  it('pools the same', () => {
    fc.assert(
      fc.property(
        planes(9),
        fc.integer({ min: 1, max: 4 }),
        settings.stride,
        settings.padding,
        (image, size, stride, padding) => {
          fc.pre(padding === 'same' || (size <= image.height && size <= image.width))
          const sliding = { size: [size, size] as const, stride, padding }
          const largest = tf.maxPool(tensor(image), size, stride, padding)
          const average = tf.avgPool(tensor(image), size, stride, padding)
          expect([...pool(image, 'max', sliding).values]).toEqual([...largest.dataSync()])
          const got = [...pool(image, 'average', sliding).values]
          average.dataSync().forEach((value, i) => expect(got[i]).toBeCloseTo(value, 4))
          // Where the windows are whole, the sum is the average times their size.
          if (padding === 'valid')
            pool(image, 'sum', sliding).values.forEach((sum, i) =>
              expect(sum).toBeCloseTo(got[i] * size ** 2),
            )
        },
      ),
    )
  })
})
