import type { ModelSpec } from '@convoy/model'

/** What makes two gradients of one leaf equal in bits. Equal classes, equal bits. */
export interface NumericsClass {
  /** The engine and its backend, such as `onednn` or `tfjs-wasm`. */
  readonly engine: string
  /** The versions of the libraries that compute. */
  readonly version: string
  readonly precision: 'float32' | 'tf32' | 'bf16'
  /** The instruction set that the engine uses on this machine, such as `avx512_bf16`; of a GPU, its model. */
  readonly instructionSet: string
  readonly threads: number
}

/** Images as they are stored, and what makes the network's input of them: a gather and a look-up, no arithmetic. */
export interface StoredImages {
  /** One array of bytes for each image, [height, width, channels]. */
  readonly pixels: readonly Uint8Array[]
  /** What each byte becomes, by channel: float32 [channels, 256]. */
  readonly table: Float32Array
  /**
   * int32 [count, 3]: 1 where the image is mirrored left to right, then how many rows and columns it moves down and
   * right; what comes in from outside is reflected, as `ImageFiller` of libs/data does.
   */
  readonly variations: Int32Array
}

/** Preprocessed images and their labels; arrays may be longer than `count` needs. */
export interface LabelledImages {
  readonly count: number
  /** float32 [count, height, width, channels]. */
  readonly images: Float32Array
  /** What `images` is made of, where there is such a thing. An engine may make them itself and leave `images` alone. */
  readonly stored?: StoredImages | undefined
  /** [count], each from 0 to classes - 1. */
  readonly labels: Int32Array
}

/** The dropout masks of a leaf. */
export interface DropoutMasks {
  /**
   * One for each dropout layer, in the model's order: [count, height, width, channels] of that layer, 1 where an activation
   * is kept and 0 where it is dropped. The engine scales what is kept by 1 / (1 - rate).
   */
  readonly values: readonly Uint8Array[]
  /**
   * Two words a layer: the keys of the streams that `values` are drawn from as masks.ts says, where they are. An engine may
   * draw them itself and leave `values` alone, which are then never drawn.
   */
  readonly keys?: Uint32Array
}

export interface GradientResult {
  /** Sum over the samples of the cross-entropy, in nats. */
  loss: number
  /** How many samples' largest logit was their label's. */
  correct: number
}

/** What is told while a gradient is computed. */
export interface TailListener {
  /** Where a layer's numbers begin in the flat gradient. */
  readonly cut: number
  /** To be called, at most once, when all numbers from there on are in place. The caller may change what is behind the cut then. */
  readonly done: () => void
}

/** A model made ready to compute on one engine. Not to be used from two threads at once. */
export interface CompiledModel {
  /** Takes the flat float32 parameters in the model's layout (copied, so the caller may reuse the array). */
  load(parameters: Float32Array): void
  /**
   * Sum (not mean) over the samples of the loss and of its gradient by the layers that are not frozen.
   *
   * @param batch At most `maxBatch` samples.
   * @param masks As `DropoutMasks`; a pure function of them and the batch, whatever was computed before.
   * @param into Receives the flat float32 gradient in the model's `trainedLayout`.
   * @param tail An engine that goes backward layer by layer tells it of the last ones; others leave it.
   * @returns At once, or when a device that can only be waited for is done; one call at a time, then.
   */
  gradient(
    batch: LabelledImages,
    masks: DropoutMasks,
    into: Float32Array,
    tail?: TailListener,
  ): GradientResult | Promise<GradientResult>
  /**
   * Begins with a leaf whose gradient will be asked for next, or after the one that was begun before it, with the same
   * `batch`: what an engine with a device of its own has, so that the device is never idle while the caller does its part.
   * It takes what is in `batch` and `masks` at once. Two may be under way. What is begun and not asked for is given up.
   */
  begin?(batch: LabelledImages, masks: DropoutMasks): void
  /**
   * Logits with dropout off.
   *
   * @param images float32 [count, height, width, channels].
   * @param count How many images, whatever `maxBatch`; up to `PREDICT_BATCH` at a time is fastest.
   * @param into Receives float32 [count, classes].
   */
  predict(images: Float32Array, count: number, into: Float32Array): void | Promise<void>
  dispose(): void
}

/** How many images a prediction is fastest with, about: enough to be worth the calls, few enough for the caches. */
export const PREDICT_BATCH = 64

/** What computes gradients. */
export interface Engine {
  readonly numerics: NumericsClass
  /** What it runs on, in words for a person, such as `oneDNN 2.6.3, avx512_bf16, 1 thread`. */
  readonly description: string
  compile(model: ModelSpec, maxBatch: number): Promise<CompiledModel>
  dispose(): void
}
