import { loadOnednn, type OnednnLibrary } from './library.ts'
import { Program, type StepList } from './program.ts'
import { Scratch } from './scratch.ts'

/** Rows and columns of the matrices to try: oneDNN is fastest at one or the other, by the CPU's caches. */
const SIZES = [512, 2048]

/**
 * How fast this machine multiplies large square matrices with the same library: what a training step is held against.
 *
 * @param precision Type of the factors and of the product.
 * @param threads As the engine that is compared.
 * @param rounds How many products of each size to time; the median counts, and of the sizes the faster.
 * @returns GFLOP/s, counting a multiply-add as two.
 * Throws E_ENGINE where the library is missing or a call fails.
 */
export function measurePeak(precision: 'float32' | 'bf16', threads: number, rounds = 9): number {
  const library = loadOnednn()
  library.setThreads(threads)
  return Math.max(...SIZES.map((size) => measure(library, precision, size, rounds)))
}

function measure(
  library: OnednnLibrary,
  precision: 'float32' | 'bf16',
  size: number,
  rounds: number,
): number {
  const program = new Program(library, new Scratch())
  try {
    const { scope } = program
    const free = scope.describe([size, size], precision, 'any')
    const descriptor = scope.descriptor(
      scope.calls.matmul(scope.engine, scope.attributes(), free, free, free),
    )
    const plain = program.tensor(scope.describe([size, size], 'float32', [size, 1]))
    const fill: StepList = []
    const product: StepList = []
    program.touchFirst(plain)
    const a = program.convert(fill, 'fill', plain, descriptor.query('source'))
    const b = program.convert(fill, 'fill', plain, descriptor.query('weights'))
    const c = program.tensor(descriptor.query('destination'))
    program.add(product, 'matmul', descriptor, [
      ['source', a],
      ['weights', b],
      ['destination', c],
    ])
    program.finish()
    plain.floats.fill(0.5)
    program.run(fill)
    program.run(product)
    const milliseconds = Array.from({ length: rounds }, () => {
      const start = performance.now()
      program.run(product)
      return performance.now() - start
    }).sort((x, y) => x - y)
    return (2 * size ** 3) / (milliseconds[rounds >> 1] * 1e6)
  } finally {
    program.dispose()
  }
}
