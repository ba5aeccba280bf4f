import koffi from 'koffi'
import {
  Query,
  type Calls,
  type DataType,
  type Description,
  type Handle,
  type PostOperation,
} from './calls.ts'
import type { OnednnLibrary } from './library.ts'

/** Owns the native objects of one plan, so that they are freed together, last made first. */
export class NativeScope {
  readonly calls: Calls
  readonly engine: Handle
  readonly stream: Handle
  readonly #frees: (() => void)[] = []

  constructor(library: OnednnLibrary) {
    this.calls = library.calls
    this.engine = this.#own(this.calls.createEngine(), this.calls.destroyEngine)
    this.stream = this.#own(this.calls.createStream(this.engine), this.calls.destroyStream)
  }

  /** A tensor's descriptor; see `Calls.describe`. */
  describe(dims: readonly number[], type: DataType, strides: readonly number[] | 'any'): Description {
    return this.#own(this.calls.describe(dims, type, strides), this.calls.forget)
  }

  /** Attributes with the scratchpad left to us and these post-operations. */
  attributes(...operations: PostOperation[]): Handle {
    return this.#own(this.calls.createAttributes(operations), this.calls.destroyAttributes)
  }

  /** Takes a primitive descriptor over. */
  descriptor(made: Handle): PrimitiveDescriptor {
    this.#own(made, this.calls.destroyPrimitiveDescriptor)
    return new PrimitiveDescriptor(this.calls, made)
  }

  primitive(descriptor: PrimitiveDescriptor): Handle {
    return this.#own(this.calls.createPrimitive(descriptor.handle), this.calls.destroyPrimitive)
  }

  /** A memory object on bytes that the caller keeps reachable as long as this scope. */
  memory(description: Description, bytes: Uint8Array | Float32Array): Handle {
    const address = koffi.address(bytes)
    return this.#own(this.calls.createMemory(description, this.engine, address), this.calls.destroyMemory)
  }

  dispose(): void {
    for (const free of this.#frees.splice(0).reverse()) free()
  }

  #own<T>(made: T, free: (made: T) => void): T {
    this.#frees.push(() => free(made))
    return made
  }
}

/** What oneDNN chose for one operation. */
export class PrimitiveDescriptor {
  readonly handle: Handle
  readonly #calls: Calls

  constructor(calls: Calls, handle: Handle) {
    this.#calls = calls
    this.handle = handle
  }

  /** The descriptor of one of its tensors. */
  query(what: keyof typeof Query): Description {
    return this.#calls.query(this.handle, Query[what])
  }

  get implementation(): string {
    return this.#calls.implementation(this.handle)
  }
}
