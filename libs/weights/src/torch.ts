import { unpack, type Members } from './archive.ts'
import { groupTensors, LARGEST_FILE, unreadable, type StoredTensor, type WeightsFile } from './file.ts'
import { toFloat32, widthOf, type FloatKind } from './numbers.ts'
import { PickledTensor, PickleError, unpickle, type Pickled } from './pickle.ts'

/**
 * PyTorch's `torch.save` of a state dict (torch/serialization.py): a zip archive with a folder that holds `data.pkl`, a pickle of the
 * dicts, and `data/0`, `data/1`, …, the bytes of each storage.
 */

/** The pickle's bytes at most: a state dict of 1,000 tensors has 200 KB. What is made of it takes some twenty times as much. */
const LARGEST_PICKLE = 4 * 1024 * 1024
/** Dicts within dicts that are looked into. */
const DEPTH = 4

const kinds: Record<string, FloatKind> = {
  FloatStorage: 'float32',
  HalfStorage: 'float16',
  BFloat16Storage: 'bfloat16',
  DoubleStorage: 'float64',
}

const STATE_DICT =
  'Save the weights alone in Python: torch.save(model.state_dict(), "weights.pt"); of a checkpoint, torch.save(checkpoint["state_dict"], "weights.pt").'

/** Whether the members of a zip archive are those of `torch.save`. */
export function isTorch(members: Members): boolean {
  return pickleOf(members) !== undefined
}

const pickleOf = (members: Members) => [...members.keys()].find((name) => /^[^/]+\/data\.pkl$/.test(name))

/** Reads a state dict of PyTorch, running nothing. Throws E_WEIGHTS_FILE. */
export async function readTorch(members: Members, file: string): Promise<WeightsFile> {
  const pickle = pickleOf(members)!
  const folder = pickle.replace(/data\.pkl$/, '')
  if (members.has(`${folder}constants.pkl`))
    throw unreadable(file, 'it is a TorchScript program', undefined, STATE_DICT)
  const order = members.get(`${folder}byteorder`)
  if (order && Buffer.from(await unpack(order, 100, file)).toString() !== 'little')
    throw unreadable(file, 'its numbers are big-endian', undefined, STATE_DICT)
  const root = readPickle(await unpack(members.get(pickle)!, LARGEST_PICKLE, file), file)
  const { name, tensors } = stateDictOf(root, file)
  const stored = await readTensors(members, `${folder}data/`, tensors, file)
  return {
    format: name === undefined ? 'PyTorch state dict' : `PyTorch state dict, ${JSON.stringify(name)}`,
    layers: groupTensors(stored),
    turned: 'no',
  }
}

/** The numbers of tensors, from the members of the archive that hold them. */
async function readTensors(
  members: Members,
  folder: string,
  tensors: readonly [string, PickledTensor][],
  file: string,
): Promise<StoredTensor[]> {
  const storages = new Map<string, Uint8Array>()
  let [left, leftPacked] = [LARGEST_FILE, LARGEST_FILE]
  const stored: StoredTensor[] = []
  for (const [key, tensor] of tensors) {
    const member = members.get(`${folder}${tensor.key}`)
    if (!member) throw unreadable(file, `the numbers of ${key} are not in it`)
    const kind = kinds[tensor.kind]
    const size = tensor.shape.reduce((product, n) => product * n, 1)
    if (kind === undefined) {
      const other = tensor.kind.replace('Storage', '').toLowerCase()
      stored.push({ name: key, shape: tensor.shape, kind: other, values: undefined })
      continue
    }
    // Expanded tensors are larger than what they are made of, and shared ones count each time.
    left -= 4 * size
    if (left < 0) throw unreadable(file, `its tensors are more than ${LARGEST_FILE} bytes`)
    let bytes = storages.get(tensor.key)
    if (!bytes) {
      bytes = await unpack(member, leftPacked, file)
      leftPacked -= bytes.length
      storages.set(tensor.key, bytes)
    }
    stored.push({ name: key, shape: tensor.shape, kind, values: valuesOf(key, tensor, kind, bytes, file) })
  }
  return stored
}

function readPickle(bytes: Uint8Array, file: string): Pickled {
  try {
    return unpickle(bytes)
  } catch (error) {
    if (!(error instanceof PickleError)) throw error
    const what =
      error.global === undefined
        ? `its pickle is none of a state dict: ${error.message}`
        : `it holds more than weights: reading it would run ${error.global}`
    throw unreadable(file, what, error, STATE_DICT)
  }
}

/**
 * The dict of tensors in what was saved: that itself, or one that lies in it, as in a checkpoint. What an optimizer keeps is as large as
 * the weights and is none of them.
 */
function stateDictOf(
  root: Pickled,
  file: string,
): { name: string | undefined; tensors: [string, PickledTensor][] } {
  const found: { name: string | undefined; tensors: [string, PickledTensor][] }[] = []
  const seen = new Set<Pickled>()
  const look = (value: Pickled, name: string | undefined, depth: number) => {
    if (!(value instanceof Map) || seen.has(value) || depth > DEPTH) return
    seen.add(value)
    const tensors = [...value].flatMap(([key, tensor]): [string, PickledTensor][] =>
      tensor instanceof PickledTensor && typeof key === 'string' ? [[key, tensor]] : [],
    )
    if (tensors.some(([, { shape }]) => shape.length === 4)) found.push({ name, tensors })
    else
      for (const [key, inner] of value)
        if (!/optim|sched|scaler/i.test(String(key)))
          look(inner, name === undefined ? String(key) : `${name}.${String(key)}`, depth + 1)
  }
  look(root, undefined, 0)
  if (found.length === 1) return found[0]
  const names = found.map(({ name }) => JSON.stringify(name)).join(', ')
  const what = found.length === 0 ? 'it holds no state dict with convolutions' : `it holds several: ${names}`
  throw unreadable(file, what, undefined, STATE_DICT)
}

/** A tensor's numbers in the order of its shape, whatever its strides. */
function valuesOf(
  name: string,
  { offset, shape, strides }: PickledTensor,
  kind: FloatKind,
  bytes: Uint8Array,
  file: string,
): Float32Array {
  const size = shape.reduce((product, n) => product * n, 1)
  const last = shape.reduce((at, n, d) => at + (n - 1) * strides[d], offset)
  if (size > 0 && (last + 1) * widthOf(kind) > bytes.length) throw unreadable(file, `${name} is cut off`)
  const whole = Math.floor(bytes.length / widthOf(kind)) * widthOf(kind)
  const contiguous = shape.every(
    (n, d) => n === 1 || strides[d] === shape.slice(d + 1).reduce((product, m) => product * m, 1),
  )
  if (contiguous)
    return toFloat32(bytes.subarray(offset * widthOf(kind), (offset + size) * widthOf(kind)), kind)
  const from = toFloat32(bytes.subarray(0, whole), kind)
  const values = new Float32Array(size)
  const at = shape.map(() => 0)
  let place = offset
  for (let i = 0; i < size; i++) {
    values[i] = from[place]
    for (let d = shape.length - 1; d >= 0; d--) {
      place += strides[d]
      if (++at[d] < shape[d]) break
      place -= at[d] * strides[d]
      at[d] = 0
    }
  }
  return values
}
