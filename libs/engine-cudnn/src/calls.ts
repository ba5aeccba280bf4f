import type { Buffer } from '@convoy/engine'

/**
 * What a plan consists of: calls on tensors, as plain data. gpu.ts runs them.
 */

export type FloatType = 'float32' | 'bf16'

/** Bytes of one number. */
export const bytesOf = { float32: 4, bf16: 2, uint8: 1, int32: 4, float64: 8 } as const

/** Numbers in the device's memory, laid out without gaps. */
export interface Tensor {
  readonly name: string
  readonly type: keyof typeof bytesOf
  /** How many numbers. */
  readonly size: number
  /** Its place in the plan's block of memory, or in its block of inputs. */
  readonly buffer: Buffer
  readonly input: boolean
}

/** A convolution or one of its gradients, as cuDNN is told of it. Images are [count, height, width, channels]. */
export interface Convolution {
  /** What is computed: the output, or the gradient of the loss by the image or by the kernel. */
  readonly pass: 'forward' | 'image' | 'kernel'
  /** Of image, kernel and output: cuDNN wants them alike. Sums are float32. */
  readonly type: FloatType
  /** Whether float32 factors may be rounded to TF32. */
  readonly tf32: boolean
  readonly image: readonly [number, number, number, number]
  /** [filters, height, width, channels]. */
  readonly kernel: readonly [number, number, number, number]
  readonly output: readonly [number, number, number, number]
  /** Zeros before, and as many after, [rows, columns]. */
  readonly padding: readonly [number, number]
  readonly stride: readonly [number, number]
}

/** What a kernel is passed: a number, a tensor's address (plus an offset in numbers), or null. */
export type Argument = number | Tensor | { readonly tensor: Tensor; readonly offset: number } | null

export type Call =
  | {
      /** The host's numbers to the device. */
      readonly kind: 'upload'
      readonly tensor: Tensor
    }
  | {
      /** A part of a tensor to the host, which goes while the calls after it compute. */
      readonly kind: 'download'
      readonly tensor: Tensor
      readonly offset: number
      readonly size: number
    }
  | {
      readonly kind: 'convolution'
      readonly name: string
      readonly convolution: Convolution
      /** As `Choose` said. */
      readonly algorithm: number
      readonly image: Tensor
      readonly kernel: Tensor
      readonly output: Tensor
      readonly workspace: Tensor | undefined
    }
  | {
      readonly kind: 'kernel'
      readonly name: string
      /** Which of kernels.ts. */
      readonly entry: string
      /** Its first argument, the number of threads that have work, comes first. */
      readonly arguments: readonly [number, ...Argument[]]
    }

/**
 * A deterministic algorithm for a convolution, by cuDNN's number, and the bytes of scratch memory that it needs. Throws
 * E_ENGINE_GPU where there is none.
 */
export type Choose = (convolution: Convolution) => { algorithm: number; workspace: number }
