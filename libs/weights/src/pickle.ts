/**
 * Python's pickles, as far as PyTorch's state dicts need them (Python's Lib/pickletools.py says what each opcode does). Nothing is
 * run: a name of Python's is looked up in `globals` below, and any other ends the reading.
 */

/** A value that a pickle holds. Dicts are Maps, tuples and lists are arrays. */
export type Pickled =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Pickled[]
  | Map<Pickled, Pickled>
  | PickledGlobal
  | PickledTensor

/** A name of Python's that stands for itself. */
export class PickledGlobal {
  readonly name: string
  constructor(name: string) {
    this.name = name
  }
}

/** A view of a storage: shape and strides in elements. */
export class PickledTensor {
  /** What the storage's numbers are, such as `FloatStorage`. */
  readonly kind: string
  /** The storage's member in the archive, below `data/`. */
  readonly key: string
  readonly offset: number
  readonly shape: readonly number[]
  readonly strides: readonly number[]
  constructor(storage: Storage, offset: number, shape: readonly number[], strides: readonly number[]) {
    this.kind = storage.kind
    this.key = storage.key
    this.offset = offset
    this.shape = shape
    this.strides = strides
  }
}

interface Storage {
  readonly kind: string
  readonly key: string
}

/** What is wrong with a pickle; `name` is the Python name that would have been run, where that is it. */
export class PickleError extends Error {
  readonly global: string | undefined
  constructor(message: string, global?: string) {
    super(message)
    this.global = global
  }
}

/** The names that a state dict needs: what makes tensors and ordered dicts, and names of types. */
function isKnown(name: string): boolean {
  return (
    [
      'collections.OrderedDict',
      'torch._utils._rebuild_tensor_v2',
      'torch._utils._rebuild_parameter',
      'torch.Size',
      'torch.device',
    ].includes(name) ||
    /^torch\.(\w+Storage|storage\.\w*Storage|b?float\d+|half|double|u?int\d+|long|bool)$/.test(name)
  )
}

const MARK = Symbol('mark')
type Slot = Pickled | Storage | typeof MARK

const whole = (value: unknown): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
const wholes = (value: unknown): value is number[] => Array.isArray(value) && value.every(whole)

/** What a call of a known name gives. */
function call(target: Slot, args: Slot): Pickled {
  const name = target instanceof PickledGlobal ? target.name : undefined
  if (name === undefined || !Array.isArray(args)) throw new PickleError('it calls what is no function')
  switch (name) {
    case 'collections.OrderedDict': {
      const dict = new Map<Pickled, Pickled>()
      for (const pair of (args[0] ?? []) as Pickled[])
        if (Array.isArray(pair) && pair.length === 2) dict.set(pair[0], pair[1])
      return dict
    }
    case 'torch._utils._rebuild_tensor_v2': {
      const [storage, offset, shape, strides] = args as unknown[]
      const { kind, key } = (storage ?? {}) as Partial<Storage>
      if (kind === undefined || key === undefined || !whole(offset) || !wholes(shape) || !wholes(strides))
        throw new PickleError('a tensor of it is malformed')
      if (shape.length !== strides.length || shape.length > 8)
        throw new PickleError('a tensor of it is malformed')
      return new PickledTensor({ kind, key }, offset, shape, strides)
    }
    case 'torch._utils._rebuild_parameter':
      if (args[0] instanceof PickledTensor) return args[0]
      throw new PickleError('a parameter of it is malformed')
    case 'torch.Size':
      return args[0] ?? []
    case 'torch.device':
      return String(args[0])
    default:
      throw new PickleError(`it calls ${name}`, name)
  }
}

/** Where a storage is, of its persistent id: ('storage', type, key, location, count). */
function storageOf(id: Slot): Storage {
  if (!Array.isArray(id) || id[0] !== 'storage') throw new PickleError('it refers to something outside')
  const [, type, key] = id
  if (!(type instanceof PickledGlobal) || typeof key !== 'string')
    throw new PickleError('a storage of it is malformed')
  return { kind: type.name.replace(/^.*\./, ''), key }
}

/** Reads bytes one after another. */
class Bytes {
  at = 0
  readonly #bytes: Uint8Array
  readonly #view: DataView
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }
  take(count: number): Uint8Array {
    if (count > this.#bytes.length - this.at) throw new PickleError('it is cut off')
    return this.#bytes.subarray(this.at, (this.at += count))
  }
  /** A whole number of so many bytes. */
  whole(count: 1 | 2 | 4 | 8): number {
    const at = this.at
    this.take(count)
    if (count === 1) return this.#view.getUint8(at)
    if (count === 2) return this.#view.getUint16(at, true)
    if (count === 4) return this.#view.getUint32(at, true)
    return Number(this.#view.getBigUint64(at, true))
  }
  signed(): number {
    return this.whole(4) | 0
  }
  float(): number {
    const at = this.at
    this.take(8)
    return this.#view.getFloat64(at, false)
  }
  text(count: number): string {
    return new TextDecoder().decode(this.take(count))
  }
  line(): string {
    const end = this.#bytes.indexOf(10, this.at)
    if (end < 0) throw new PickleError('it is cut off')
    const text = this.text(end - this.at)
    this.at++
    return text
  }
  /** An integer of up to 8 bytes, little-endian, in two's complement; PyTorch has longer ones nowhere. */
  long(count: number): number {
    if (count > 8) throw new PickleError('it has an integer of more than 64 bits')
    const bytes = this.take(count)
    let value = 0n
    bytes.forEach((byte, i) => (value |= BigInt(byte) << BigInt(8 * i)))
    return Number(BigInt.asIntN(8 * count || 1, value))
  }
}

/** The stack machine that a pickle is a program for. */
class Machine {
  readonly #bytes: Bytes
  readonly #stack: Slot[] = []
  readonly #memo = new Map<number, Slot>()

  constructor(bytes: Uint8Array) {
    this.#bytes = new Bytes(bytes)
  }

  run(): Pickled {
    for (;;) {
      const opcode = String.fromCharCode(this.#bytes.whole(1))
      if (opcode === '.') return this.#pop() as Pickled
      if (!this.#pushes(opcode) && !this.#gathers(opcode) && !this.#calls(opcode))
        throw new PickleError(
          `it has the opcode 0x${opcode.charCodeAt(0).toString(16)}, which no state dict has`,
        )
    }
  }

  #pop(): Slot {
    const value = this.#stack.pop()
    if (value === undefined || value === MARK) throw new PickleError('it takes from an empty stack')
    return value
  }

  #top(): Slot {
    const value = this.#pop()
    this.#stack.push(value)
    return value
  }

  /** What lies above the last mark, without it. */
  #sinceMark(): Pickled[] {
    const mark = this.#stack.lastIndexOf(MARK)
    if (mark < 0) throw new PickleError('it takes from an empty stack')
    const values = this.#stack.splice(mark)
    return values.slice(1) as Pickled[]
  }

  /** Opcodes that put one value on the stack. */
  #pushes(opcode: string): boolean {
    const value = this.#literal(opcode)
    if (value === undefined) return false
    this.#stack.push(value)
    return true
  }

  #literal(opcode: string): Slot | undefined {
    const bytes = this.#bytes
    switch (opcode) {
      case '(':
        return MARK
      case 'N':
        return null
      case '\x88':
        return true
      case '\x89':
        return false
      case 'J':
        return bytes.signed()
      case 'K':
        return bytes.whole(1)
      case 'M':
        return bytes.whole(2)
      case '\x8a':
        return bytes.long(bytes.whole(1))
      case 'G':
        return bytes.float()
      case 'X':
        return bytes.text(bytes.whole(4))
      case '\x8c':
        return bytes.text(bytes.whole(1))
      case '\x8d':
        return bytes.text(bytes.whole(8))
      case 'B':
        return bytes.take(bytes.whole(4))
      case 'C':
        return bytes.take(bytes.whole(1))
      case '}':
        return new Map()
      case ']':
      case ')':
        return []
      case 'h':
        return this.#recall(bytes.whole(1))
      case 'j':
        return this.#recall(bytes.whole(4))
      default:
        return undefined
    }
  }

  #recall(index: number): Slot {
    const value = this.#memo.get(index)
    if (value === undefined) throw new PickleError('it recalls what it has not stored')
    return value
  }

  /** Opcodes that put together what is on the stack, or keep it. */
  #gathers(opcode: string): boolean {
    const stack = this.#stack
    switch (opcode) {
      case '\x80':
        if (this.#bytes.whole(1) > 5) throw new PickleError('it is of a protocol after 5')
        return true
      case '\x95':
        this.#bytes.take(8)
        return true
      case 'q':
        this.#memo.set(this.#bytes.whole(1), this.#top())
        return true
      case 'r':
        this.#memo.set(this.#bytes.whole(4), this.#top())
        return true
      case '\x94':
        this.#memo.set(this.#memo.size, this.#top())
        return true
      case '0':
        this.#pop()
        return true
      case 't':
      case 'l':
        stack.push(this.#sinceMark())
        return true
      case '\x85':
      case '\x86':
      case '\x87': {
        const count = opcode.charCodeAt(0) - 0x84
        const values = Array.from({ length: count }, () => this.#pop() as Pickled)
        stack.push(values.reverse())
        return true
      }
      case 'a':
        this.#append([this.#pop() as Pickled])
        return true
      case 'e':
        this.#append(this.#sinceMark())
        return true
      case 's': {
        const value = this.#pop() as Pickled
        this.#set([this.#pop() as Pickled, value])
        return true
      }
      case 'u':
        this.#set(this.#sinceMark())
        return true
      default:
        return false
    }
  }

  #append(values: readonly Pickled[]): void {
    const list = this.#top()
    if (!Array.isArray(list)) throw new PickleError('it appends to what is no list')
    for (const value of values) list.push(value)
  }

  #set(pairs: readonly Pickled[]): void {
    const dict = this.#top()
    if (!(dict instanceof Map) || pairs.length % 2 !== 0)
      throw new PickleError('it sets an item of what is no dict')
    for (let i = 0; i < pairs.length; i += 2) dict.set(pairs[i], pairs[i + 1])
  }

  /** Opcodes that would run something in Python. */
  #calls(opcode: string): boolean {
    const stack = this.#stack
    switch (opcode) {
      case 'c': {
        const module = this.#bytes.line()
        stack.push(this.#global(`${module}.${this.#bytes.line()}`))
        return true
      }
      case '\x93': {
        const [name, module] = [this.#pop(), this.#pop()]
        if (typeof name !== 'string' || typeof module !== 'string')
          throw new PickleError('it has a name that is no text')
        stack.push(this.#global(`${module}.${name}`))
        return true
      }
      case 'R':
      case '\x81': {
        const args = this.#pop()
        stack.push(call(this.#pop(), args))
        return true
      }
      // The state of an ordered dict is its attributes, such as `_metadata`: nothing of it is weights.
      case 'b':
        this.#pop()
        if (!(this.#top() instanceof Map)) throw new PickleError('it gives a state to what is no dict')
        return true
      case 'Q':
        stack.push(storageOf(this.#pop()))
        return true
      default:
        return false
    }
  }

  #global(name: string): PickledGlobal {
    if (!isKnown(name)) throw new PickleError(`it would run ${name.slice(0, 100)}`, name.slice(0, 100))
    return new PickledGlobal(name)
  }
}

/** Reads a pickle, running nothing of it. Throws PickleError for all but tensors, dicts, lists, tuples, numbers and text. */
export function unpickle(bytes: Uint8Array): Pickled {
  return new Machine(bytes).run()
}
