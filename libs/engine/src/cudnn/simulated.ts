import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import koffi from 'koffi'
import { alignedBytes } from '../arena.ts'
import { bytesOf, type Argument, type Call, type Convolution, type Device, type FloatType, type Session, type Tensor } from './calls.ts' // prettier-ignore
import { BLOCK, entries, source } from './kernels.ts'

/**
 * A GPU for tests on machines without one: memory is the host's, the kernels are the same CUDA source compiled by g++, and
 * convolutions are plain loops in float32. What it shows is that a plan's calls have the right tensors, shapes and order;
 * it can not show that cuDNN does what its documentation says.
 */

/** What CUDA has and C++ has not. Each kernel gets a function that runs its threads one after another. */
const PRELUDE = `
#include <cmath>
#include <cstring>
using std::exp; using std::log; using std::log1p; using std::fabs;
#define __device__
#define __global__
static float __uint_as_float(unsigned bits) { float value; memcpy(&value, &bits, 4); return value; }
static unsigned __float_as_uint(float value) { unsigned bits; memcpy(&bits, &value, 4); return bits; }
static struct { unsigned x; } blockIdx, blockDim = {${BLOCK}}, threadIdx;
`

type Kernel = (...args: (number | bigint)[]) => void

/** Whether g++ is here. */
export const compilerFound = spawnSync('g++', ['--version']).status === 0

function compileKernels(): Map<string, Kernel> {
  const folder = mkdtempSync(path.join(tmpdir(), 'convoy-kernels-'))
  try {
    const runners = [...source.matchAll(/extern "C" __global__ void (\w+)\(([^)]*)\)/g)].map(
      ([, name, parameters]) => {
        const names = parameters.split(', ').map((parameter) => /\w+$/.exec(parameter)![0])
        return `extern "C" void run_${name}(${parameters}) {
          for (blockIdx.x = 0; blockIdx.x * ${BLOCK} < size; blockIdx.x++)
            for (threadIdx.x = 0; threadIdx.x < ${BLOCK}; threadIdx.x++) ${name}(${names.join(', ')});
        }`
      },
    )
    const program = path.join(folder, 'kernels.cpp')
    const output = path.join(folder, 'kernels.so')
    writeFileSync(program, [PRELUDE, source, ...runners].join('\n'))
    const flags = ['-std=c++17', '-O2', '-ffp-contract=off', '-shared', '-fPIC']
    const compiled = spawnSync('g++', [...flags, program, '-o', output], { encoding: 'utf8' })
    if (compiled.status !== 0) throw new Error(`g++ does not take the kernels:\n${compiled.stderr}`)
    const library = koffi.load(output)
    return new Map(
      [...entries].map(([name, kinds]) => {
        const types = kinds.map((kind) => (kind === 'pointer' ? 'void *' : kind))
        return [name, library.func(`void run_${name}(${types.join(', ')})`)]
      }),
    )
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** Bytes of scratch memory that every convolution is given, and overwrites. */
const WORKSPACE = 1000

export class SimulatedDevice implements Device {
  readonly kernels = compileKernels()

  choose(): { algorithm: number; workspace: number } {
    return { algorithm: 1, workspace: WORKSPACE }
  }

  open(bytes: number): Session {
    return new SimulatedSession(this.kernels, bytes)
  }
}

class SimulatedSession implements Session {
  readonly #kernels: ReadonlyMap<string, Kernel>
  readonly #memory: Uint8Array
  readonly #hosts = new Map<Tensor, Uint8Array<ArrayBuffer>>()

  constructor(kernels: ReadonlyMap<string, Kernel>, bytes: number) {
    this.#kernels = kernels
    // What nobody wrote is NaN, in every type.
    this.#memory = alignedBytes(bytes).fill(0xff)
  }

  host(tensor: Tensor): ArrayBuffer {
    return this.#host(tensor).buffer
  }

  run(list: readonly Call[]): void {
    for (const call of list) this.#run(call)
  }

  dispose(): void {
    this.#memory.fill(0xff)
  }

  #host(tensor: Tensor): Uint8Array<ArrayBuffer> {
    const bytes = this.#hosts.get(tensor) ?? new Uint8Array(tensor.buffer.bytes)
    this.#hosts.set(tensor, bytes)
    return bytes
  }

  #bytes({ buffer: { offset, bytes } }: Tensor): Uint8Array {
    return this.#memory.subarray(offset, offset + bytes)
  }

  #run(call: Call): void {
    switch (call.kind) {
      case 'upload':
        return this.#bytes(call.tensor).set(this.#host(call.tensor))
      case 'download':
        return this.#host(call.tensor).set(this.#bytes(call.tensor))
      case 'convolution': {
        const { convolution, workspace } = call
        const written = { forward: 'output', image: 'image', kernel: 'kernel' } as const
        const [image, kernel, output] = [call.image, call.kernel, call.output].map((tensor) =>
          this.#read(tensor, convolution.type),
        )
        const target = written[convolution.pass]
        const result = { image, kernel, output }[target].fill(0)
        convolve(convolution, image, kernel, output)
        this.#write(call[target], result)
        if (workspace) this.#bytes(workspace).fill(0xee)
        return
      }
      case 'kernel': {
        const run = this.#kernels.get(call.entry)
        if (!run) throw new Error(`there is no kernel ${call.entry}`)
        const kinds = entries.get(call.entry)!
        if (kinds.length !== call.arguments.length)
          throw new Error(`${call.name}: ${call.entry} takes ${kinds.length} arguments`)
        return run(...call.arguments.map((argument, i) => this.#pass(argument, kinds[i] === 'pointer')))
      }
    }
  }

  #pass(argument: Argument, pointer: boolean): number | bigint {
    if (typeof argument === 'number' ? pointer : !pointer) throw new Error('an argument of another kind')
    if (argument === null) return 0n
    if (typeof argument === 'number') return argument
    const { tensor, offset } = 'tensor' in argument ? argument : { tensor: argument, offset: 0 }
    return koffi.address(this.#bytes(tensor)) + BigInt(offset * bytesOf[tensor.type])
  }

  /** The numbers as float32; of bf16, a copy. */
  #read(tensor: Tensor, type: FloatType): Float32Array {
    if (tensor.type !== type) throw new Error(`${tensor.name} is ${tensor.type} and not ${type}`)
    const { buffer, byteOffset } = this.#bytes(tensor)
    return type === 'float32'
      ? new Float32Array(buffer, byteOffset, tensor.size)
      : new Float32Array(
          Uint32Array.from(new Uint16Array(buffer, byteOffset, tensor.size), (b) => b << 16).buffer,
        )
  }

  #write(tensor: Tensor, values: Float32Array): void {
    if (tensor.type !== 'bf16') return
    const { buffer, byteOffset } = this.#bytes(tensor)
    const bits = new Uint32Array(values.buffer)
    const to = new Uint16Array(buffer, byteOffset, tensor.size)
    // To the nearest, ties to even; there are no NaNs where a plan is right.
    for (let i = 0; i < to.length; i++) to[i] = (bits[i] + 0x7fff + ((bits[i] >>> 16) & 1)) >>> 16
  }
}

/** Adds to the operand that the pass writes. */
function convolve(
  convolution: Convolution,
  image: Float32Array,
  kernel: Float32Array,
  output: Float32Array,
): void {
  const { pass, padding, stride } = convolution
  const [count, height, width, channels] = convolution.image
  const [filters, down, across] = convolution.kernel
  const [, rows, columns] = convolution.output
  const sizes = [count * height * width * channels, filters * down * across * channels, count * rows * columns * filters] // prettier-ignore
  if ([image, kernel, output].some((operand, i) => operand.length !== sizes[i]))
    throw new Error('an operand of another size')
  // As cuDNN works it out: an output of another size is refused.
  const fits = (size: number, d: 0 | 1) =>
    Math.floor((convolution.image[1 + d] + 2 * padding[d] - convolution.kernel[1 + d]) / stride[d]) + 1 ===
    size
  if (!fits(rows, 0) || !fits(columns, 1)) throw new Error('an output of another shape')
  for (let n = 0; n < count; n++) {
    for (let oy = 0; oy < rows; oy++) {
      for (let ox = 0; ox < columns; ox++) {
        const o = ((n * rows + oy) * columns + ox) * filters
        for (let ky = 0; ky < down; ky++) {
          const y = oy * stride[0] + ky - padding[0]
          if (y < 0 || y >= height) continue
          for (let kx = 0; kx < across; kx++) {
            const x = ox * stride[1] + kx - padding[1]
            if (x < 0 || x >= width) continue
            const i = ((n * height + y) * width + x) * channels
            for (let f = 0; f < filters; f++) {
              const k = ((f * down + ky) * across + kx) * channels
              if (pass === 'forward') {
                let sum = 0
                for (let c = 0; c < channels; c++) sum += image[i + c] * kernel[k + c]
                output[o + f] += sum
              } else if (pass === 'image') {
                for (let c = 0; c < channels; c++) image[i + c] += output[o + f] * kernel[k + c]
              } else {
                for (let c = 0; c < channels; c++) kernel[k + c] += output[o + f] * image[i + c]
              }
            }
          }
        }
      }
    }
  }
}
