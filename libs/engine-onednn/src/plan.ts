import koffi from 'koffi'
import type { TailListener } from '@convoy/engine'
import type { ModelSpec } from '@convoy/model'
import { PlanBuilder } from './builder.ts'
import type { OnednnLibrary } from './library.ts'
import { Program, type Profile } from './program.ts'
import type { Scratch } from './scratch.ts'

/**
 * A model compiled for exactly `count` samples: lists of primitives whose arguments are laid out once.
 *
 * Convolutions choose the layouts and everything else follows; a reorder stands only where two neighbours disagree, and
 * one result serves all who want it. ReLU works in place, since it tells its gradient from its output.
 *
 * In bf16, what lies between the input of the first convolution and that of the last is bf16; parameters, their
 * gradients, the last convolution's output and what follows it are float32.
 *
 * Source: oneDNN's developer guide: "Memory Format Propagation", "Training-Specific Aspects", "bfloat16 Training" and
 * "Primitive Attributes: Scratchpad".
 */
export class Plan {
  readonly count: number
  readonly #parameters: Float32Array
  readonly #program: Program
  readonly #built: PlanBuilder
  /** The array that the last gradient went to, held so that its memory stays where it is. */
  #target: Float32Array | undefined

  /**
   * @param parameters Flat float32 parameters, read by `load`; the plan keeps the array.
   * @param scratch Memory shared with plans that do not run between this one's `forward` and `backward`.
   * Throws E_ENGINE where oneDNN cannot do a layer or memory runs out.
   */
  constructor(
    library: OnednnLibrary,
    model: ModelSpec,
    count: number,
    precision: 'float32' | 'bf16',
    parameters: Float32Array,
    purpose: 'train' | 'predict',
    scratch: Scratch,
  ) {
    this.count = count
    this.#parameters = parameters
    this.#program = new Program(library, scratch)
    try {
      this.#built = new PlanBuilder(this.#program, model, count, precision, parameters, purpose)
      this.#program.finish()
    } catch (error) {
      this.#program.dispose()
      throw error
    }
  }

  /** Takes the parameters over into the layouts of this plan. */
  load(): void {
    for (const { view, tensor } of this.#built.biases) {
      tensor.floats.set(this.#parameters.subarray(view.offset, view.offset + view.size))
    }
    for (const list of this.#built.loads) this.#program.run(list)
  }

  /** Logits float32 [count, classes]; valid until the plan runs again. Masks are there where the plan is to train. */
  forward(images: Float32Array, masks: readonly Uint8Array[] = []): Float32Array {
    const input = this.#built.images.floats
    input.set(images.length === input.length ? images : images.subarray(0, input.length))
    this.#built.masks.forEach(({ bytes }, i) => {
      bytes.set(masks[i].length === bytes.length ? masks[i] : masks[i].subarray(0, bytes.length))
    })
    this.#program.run(this.#built.forward)
    return this.#built.logits.floats
  }

  /** Where to put the gradient of the loss by the logits, float32 [count, classes], before `backward`. */
  get logitGradients(): Float32Array {
    return this.#built.logitGradients.floats
  }

  /** Writes the flat gradient of what is trained; `forward` and `logitGradients` come before. */
  backward(into: Float32Array, tail?: TailListener): void {
    this.#aim(into)
    const { backward } = this.#built
    if (!tail) {
      this.#program.run(backward)
      return this.#putBiases(into, 0, Infinity)
    }
    const { cut, done } = tail
    // Layers come from the last one to the first.
    const middle = this.#built.kernelGradients.findLast(({ view }) => view.offset >= cut)?.after ?? 0
    this.#program.run(backward, 0, middle)
    this.#putBiases(into, cut, Infinity)
    done()
    this.#program.run(backward, middle)
    this.#putBiases(into, 0, cut)
  }

  /** Puts the gradients of biases in [first, end) where they belong. */
  #putBiases(into: Float32Array, first: number, end: number): void {
    for (const { view, tensor } of this.#built.biasGradients) {
      if (first <= view.offset && view.offset < end) into.set(tensor.floats, view.offset)
    }
  }

  /** Runs all steps one by one on whatever the buffers hold and adds their times to `profile`. */
  profile(profile: Profile): void {
    this.#aim(new Float32Array(this.#parameters.length))
    for (const list of [...this.#built.loads, this.#built.forward, this.#built.backward]) {
      this.#program.runProfiled(list, profile)
    }
  }

  /** Lets the kernels' gradients be written where they belong in `into`, which is cheaper than to copy them there. */
  #aim(into: Float32Array): void {
    if (into === this.#target) return
    const address = koffi.address(into)
    for (const { view, tensor } of this.#built.kernelGradients) {
      this.#program.scope.calls.moveMemory(tensor.memory, address + BigInt(4 * view.offset))
    }
    this.#target = into
  }

  /** Frees everything native. The plan must not be used afterwards. */
  dispose(): void {
    this.#program.dispose()
  }
}
