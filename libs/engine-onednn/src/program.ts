import koffi from 'koffi'
import { Arena, isKept, type Buffer } from '@convoy/engine'
import { Argument, checkStatus, type Description, type Handle } from './calls.ts'
import type { OnednnLibrary } from './library.ts'
import { NativeScope, type PrimitiveDescriptor } from './scope.ts'
import { alignedBytes, type Scratch } from './scratch.ts'

/** A tensor: its layout and, once the program is finished, its memory. */
export interface Tensor {
  readonly description: Description
  /** Its place in the arena; undefined where the memory is the caller's. */
  readonly buffer: Buffer | undefined
  memory: Handle
  bytes: Uint8Array
  /** The same bytes as float32. */
  floats: Float32Array
}

type Arguments = readonly (readonly [argument: keyof typeof Argument, tensor: Tensor])[]

export interface Step {
  readonly name: string
  readonly implementation: string
  readonly primitive: Handle
  readonly arguments: Arguments
  /** `arguments` as oneDNN takes them: pairs {int32 argument; pointer memory}. */
  readonly table: BigUint64Array
  readonly address: bigint
}

const NO_BYTES = new Uint8Array(0)
const NO_FLOATS = new Float32Array(0)

/** Steps that run one after another. */
export type StepList = Step[]

/** Milliseconds by step, and the implementation that oneDNN picked for it. */
export type Profile = Map<string, { milliseconds: number; implementation: string }>

/**
 * Primitives with their tensors and arguments laid out once, so that running them allocates nothing.
 *
 * Add all steps in the order in which they will run (the arena lets tensors share bytes by that order), then `finish`.
 */
export class Program {
  readonly scope: NativeScope
  readonly #arena = new Arena(64)
  readonly #tensors: Tensor[] = []
  readonly #variants = new Map<Tensor, Tensor[]>()
  readonly #pending: Step[] = []
  readonly #scratch: Scratch
  #clock = 0

  /** @param scratch Memory for all that is not kept; another program may use it whenever this one does not run. */
  constructor(library: OnednnLibrary, scratch: Scratch) {
    this.scope = new NativeScope(library)
    this.#scratch = scratch
  }

  /** A tensor that lives from its first to its last use by a step. */
  tensor(description: Description): Tensor {
    const buffer = this.#arena.reserve(this.scope.calls.bytes(description))
    const tensor: Tensor = { description, buffer, memory: 0n, bytes: NO_BYTES, floats: NO_FLOATS }
    this.#tensors.push(tensor)
    return tensor
  }

  /** A tensor on memory of the caller's, which must stay reachable. */
  outside(description: Description, floats: Float32Array): Tensor {
    const memory = this.scope.memory(description, floats)
    return { description, buffer: undefined, memory, bytes: NO_BYTES, floats }
  }

  /** Says that a tensor is written or read by JavaScript now, between the steps added so far and those to come. */
  touch(tensor: Tensor): void {
    if (tensor.buffer) this.#arena.touch(tensor.buffer, this.#clock)
  }

  /** Says that a tensor is written by JavaScript before the first step. */
  touchFirst(tensor: Tensor): void {
    if (tensor.buffer) this.#arena.touch(tensor.buffer, 0)
  }

  /** Says that a tensor lives for ever. */
  keep(tensor: Tensor): void {
    if (tensor.buffer) this.#arena.keep(tensor.buffer)
  }

  /** Appends a primitive to `list`. */
  add(list: StepList, name: string, descriptor: PrimitiveDescriptor, args: Arguments): void {
    const { calls } = this.scope
    const scratchpad = descriptor.query('scratchpad')
    const all =
      calls.bytes(scratchpad) > 0 ? [...args, ['scratchpad', this.tensor(scratchpad)] as const] : args
    this.#clock++
    for (const [, tensor] of all) this.touch(tensor)
    const table = new BigUint64Array(2 * all.length)
    const step: Step = {
      name,
      implementation: descriptor.implementation,
      primitive: this.scope.primitive(descriptor),
      arguments: all,
      table,
      address: koffi.address(table),
    }
    list.push(step)
    this.#pending.push(step)
  }

  /**
   * The tensor in another layout or type: itself where nothing differs, what an earlier call made where there is one, or
   * the result of a reorder appended to `list`. To be called only after the last in-place step on the tensor.
   */
  convert(list: StepList, name: string, tensor: Tensor, description: Description): Tensor {
    const { calls } = this.scope
    if (calls.equal(tensor.description, description)) return tensor
    const variants = this.#variants.get(tensor) ?? []
    this.#variants.set(tensor, variants)
    const known = variants.find((variant) => calls.equal(variant.description, description))
    if (known) return known
    const converted = this.tensor(description)
    variants.push(converted)
    this.copy(list, name, tensor, converted)
    return converted
  }

  /** Appends a reorder from one tensor to another. */
  copy(list: StepList, name: string, from: Tensor, to: Tensor): void {
    const { calls, engine } = this.scope
    const made = calls.reorder(engine, this.scope.attributes(), from.description, to.description)
    this.add(list, name, this.scope.descriptor(made), [
      ['source', from],
      ['destination', to],
    ])
  }

  /** Allocates the memory and fills the argument tables. */
  finish(): void {
    const kept = alignedBytes(this.#arena.place(isKept))
    const scratch = this.#scratch.take(this.#arena.place((buffer) => !isKept(buffer)))
    for (const tensor of this.#tensors) {
      const { offset, bytes: length } = tensor.buffer!
      const bytes = (isKept(tensor.buffer!) ? kept : scratch).subarray(offset, offset + length)
      tensor.bytes = bytes
      tensor.floats = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2)
      tensor.memory = this.scope.memory(tensor.description, bytes)
    }
    for (const { arguments: args, table } of this.#pending.splice(0)) {
      args.forEach(([argument, tensor], i) => {
        table[2 * i] = BigInt(Argument[argument])
        table[2 * i + 1] = tensor.memory
      })
    }
  }

  /** Runs the steps, or those of [first, end); blocks until they are done. Throws E_ENGINE where one fails. */
  run(list: StepList, first = 0, end = list.length): void {
    const { calls, stream } = this.scope
    for (let i = first; i < end; i++) {
      const step = list[i]
      const status = calls.execute(step.primitive, stream, step.arguments.length, step.address)
      if (status !== 0) checkStatus(status, `run ${step.name}`)
    }
    checkStatus(calls.wait(stream), 'wait for the stream')
  }

  /** Runs the steps one at a time and adds what each took to `profile`. */
  runProfiled(list: StepList, profile: Profile): void {
    for (const step of list) {
      const start = performance.now()
      this.run([step])
      const { milliseconds } = profile.get(step.name) ?? { milliseconds: 0 }
      profile.set(step.name, {
        milliseconds: milliseconds + performance.now() - start,
        implementation: step.implementation,
      })
    }
  }

  /** Frees everything native. */
  dispose(): void {
    this.scope.dispose()
  }
}
