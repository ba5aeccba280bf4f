import type { Arena, Matrix, Slot } from '@convoy/arena'
import { Optimizer, type OptimizerOptions, type Rule } from './optimizer.ts'
import { NewtonSchulz } from './orthogonal.ts'
import { plain, type Parametrisation, type Stretch } from './parametrisation.ts'

/** A kernel in HWIO, whose filters are the columns of a matrix [height·width·input, filters]. */
export interface MuonKernel {
  /** Where it starts among the parameters, in elements. */
  readonly offset: number
  /** How many elements it has. */
  readonly size: number
  readonly filters: number
  /** What the rate is multiplied by; at 0 the kernel stays as it is. */
  readonly rate: number
  /** c: how long a filter is, for what its input has gone through. */
  readonly scale: number
  /** Whether each filter's gradient has its mean taken out, so that the mean of a filter stays what it is. */
  readonly centred: boolean
  /** Whether its Frobenius norm is held at c·√filters. */
  readonly held: boolean
}

export interface MuonOptions extends Omit<OptimizerOptions, 'decayed'> {
  /** All kernels, in the order of the parameters; what lies between two is the bias of the first. */
  readonly kernels: readonly MuonKernel[]
  /** μ, from 0 to below 1. */
  readonly momentum: number
  /** Newton–Schulz iterations of an update, 1–6. */
  readonly iterations: number
  /** Of parts with whole kernels. */
  readonly parametrisation?: Parametrisation
}

/**
 * Muon: momentum, orthogonalised (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024). For a kernel w, as
 * a matrix of `rows` rows, with gradient g:
 *
 *     g ← g - each column's mean                                        (centred; Yong et al., "Gradient Centralization", 2020)
 *     m ← μ·m + g;   u = orthogonal(g + μ·m)                            (see NewtonSchulz)
 *     w ← w - η·rate·c·√max(1, filters/rows)·u
 *     w ← w·(c·√filters / ‖w‖)                                          (held)
 *
 * and for a bias b, with η times the options' `biasRate`:
 *
 *     m ← μ·m + g;   u = g + μ·m;   b ← b - η·u/rms(u)
 *
 * The norm of a gradient has no influence on an update, but against those before it. Numbers are float64 within a line and rounded to
 * float32 where stored, but for matrix products, which are float32; all in one fixed order.
 */
export class Muon extends Optimizer {
  /**
   * @param arena Where it computes.
   * @param variables w and b to start with, copied.
   * @param velocity m to start with, copied.
   */
  constructor(arena: Arena, variables: Float32Array, velocity: Float32Array, options: MuonOptions) {
    const {
      kernels,
      parametrisation = plain(
        arena.size,
        kernels.slice(1).map(({ offset }) => offset),
      ),
    } = options
    super(arena, variables, rule(arena, arena.hold(velocity), options), {
      ...options,
      parametrisation,
      decayed: kernels.map(({ offset, size }) => [offset, size] as const),
    })
  }
}

function rule(arena: Arena, velocity: Slot, { kernels, momentum, iterations }: MuonOptions): Rule {
  const most = Math.max(1, ...kernels.map(({ filters }) => filters))
  const newtonSchulz = new NewtonSchulz(arena, most, iterations)
  const [push, orthogonal] = [arena.take(), arena.take()]
  const [a, b, c] = [0, 0, 0].map(() => arena.takeColumns(most))
  const byOffset = new Map(kernels.map((kernel) => [kernel.offset, kernel]))

  function moveKernel(w: Slot, g: Slot, kernel: MuonKernel, rate: number, scale: number): void {
    const { offset, size, filters } = kernel
    if (kernel.rate === 0) return
    const matrix: Matrix = { first: offset, rows: size / filters, columns: filters }
    const { rows } = matrix
    // m and what is looked ahead to are the same line of g and of m as it is by then.
    a.values.fill(momentum)
    b.values.fill(scale)
    if (kernel.centred) {
      arena.columnSums(g, matrix, c)
      for (let j = 0; j < filters; j++) c.values[j] *= -scale / rows
    } else {
      c.values.fill(0)
    }
    arena.columnPlane(velocity, g, velocity, matrix, a, b, c)
    arena.columnPlane(velocity, g, push, matrix, a, b, c)
    newtonSchulz.orthogonalise(push, orthogonal, matrix)
    a.values.fill(1)
    b.values.fill(-rate * kernel.rate * kernel.scale * Math.sqrt(Math.max(1, filters / rows)))
    c.values.fill(0)
    arena.columnPlane(w, orthogonal, w, matrix, a, b, c)
    if (!kernel.held) return
    const norm = newtonSchulz.norm(w, matrix)
    if (norm === 0) return
    a.values.fill((kernel.scale * Math.sqrt(filters)) / norm)
    arena.columnLine(w, w, matrix, a, c)
  }

  function moveBias(w: Slot, g: Slot, [first, end]: Stretch, rate: number, scale: number): void {
    const [variables, gradient, m] = [w.values, g.values, velocity.values]
    const ahead = (i: number) => gradient[i] * scale + momentum * m[i]
    let squares = 0
    for (let i = first; i < end; i++) {
      m[i] = ahead(i)
      squares += ahead(i) * ahead(i)
    }
    if (squares === 0) return
    const step = rate / Math.sqrt(squares / (end - first))
    for (let i = first; i < end; i++) variables[i] -= step * ahead(i)
  }

  return {
    velocity,
    move(w, g, stretch, rate, scale, isKernel) {
      if (isKernel) moveKernel(w, g, byOffset.get(stretch[0])!, rate, scale)
      else moveBias(w, g, stretch, rate, scale)
    },
  }
}

/**
 * Has centred kernels begin with filters of mean 0, and held ones with filters of norm c, in place. Numbers are float64 within a
 * filter, summed from its first row to its last. A filter that is 0 stays so.
 */
export function normaliseFilters(parameters: Float32Array, kernels: readonly MuonKernel[]): void {
  for (const { offset, size, filters, scale, centred, held } of kernels) {
    const end = offset + size
    for (let first = offset; first < offset + filters; first++) {
      let sum = 0
      for (let i = first; i < end; i += filters) sum += parameters[i]
      const mean = centred ? (sum * filters) / size : 0
      let squares = 0
      for (let i = first; i < end; i += filters) squares += (parameters[i] - mean) * (parameters[i] - mean)
      const factor = held && squares > 0 ? scale / Math.sqrt(squares) : 1
      for (let i = first; i < end; i += filters) parameters[i] = factor * (parameters[i] - mean)
    }
  }
}
