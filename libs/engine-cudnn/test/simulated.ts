import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import koffi from 'koffi'
import { entries, source } from '../src/kernels.ts'

/**
 * A GPU for tests on machines without one: libcuda, libcudnn and libnvrtc as one library on the CPU (simulated-gpu.cpp)
 * that holds the very kernels of kernels.ts, compiled by g++. With it a test runs everything but NVIDIA's own code: how
 * libraries are found and called, the plan, the kernels, recorded steps.
 *
 * It cannot show that cuDNN, NVRTC or the driver do what their documentation says.
 */

/** What CUDA has and C++ has not, and how to find and call the kernels. */
const PRELUDE = `
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>
using std::exp; using std::log; using std::log1p; using std::fabs;
#define __device__ static
#define __global__
static float __uint_as_float(unsigned bits) { float value; memcpy(&value, &bits, 4); return value; }
static unsigned __float_as_uint(float value) { unsigned bits; memcpy(&bits, &value, 4); return bits; }
static struct { unsigned x; } blockIdx, blockDim, threadIdx;
typedef std::function<void(unsigned blocks, unsigned threads)> Bound;
struct Kernel { std::vector<bool> pointers; std::function<Bound(void **)> bind; };
template <class F> Bound bound(F kernel) {
  return [=](unsigned blocks, unsigned threads) {
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)
      for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) kernel();
  };
}
`

/** The kernels by name: which parameters are addresses, and how to take their values from CUDA's array. */
function table(): string {
  const rows = [...source.matchAll(/extern "C" __global__ void (\w+)\(([^)]*)\)/g)].map(
    ([, name, parameters]) => {
      const types = parameters.split(', ').map((parameter) => parameter.replace(/\w+$/, ''))
      const pointers = entries.get(name)!.map((kind) => kind === 'pointer')
      const taken = types.map((type, i) => `v${i} = *(${type}*)p[${i}]`).join(', ')
      const given = types.map((_, i) => `v${i}`).join(', ')
      return `  {"${name}", {{${pointers.join(', ')}}, [](void **p) { return bound([${taken}] { ${name}(${given}); }); }}},`
    },
  )
  return `static std::map<std::string, Kernel> kernels = {\n${rows.join('\n')}\n};\n`
}

/** Whether g++ is here, which the simulation needs. */
export const compilerFound = spawnSync('g++', ['--version']).status === 0

/** A simulated GPU and its faults. */
export interface SimulatedGpu {
  /** For CONVOY_CUDA. */
  readonly folder: string
  /** Has it misbehave from now on, or behave again (''). The names are in simulated-gpu.cpp. */
  readonly simulate: (fault: string) => void
  /** Sets the order of what several streams do, where CUDA leaves it open: 0 at once, 1 as late as can be, above a seed. */
  readonly schedule: (seed: number) => void
  /** How many recorded steps were run. */
  readonly graphLaunches: () => number
  /** How many things that were made are not yet freed. */
  readonly liveObjects: () => number
  /** Deletes the folder. */
  readonly remove: () => void
}

/** Compiles the simulation, into a new folder. */
export function buildSimulatedGpu(): SimulatedGpu {
  const folder = mkdtempSync(path.join(tmpdir(), 'convoy-gpu-'))
  const program = path.join(folder, 'gpu.cpp')
  const output = path.join(folder, 'libcuda.so.1')
  const rest = readFileSync(path.join(import.meta.dirname, 'simulated-gpu.cpp'), 'utf8')
  writeFileSync(program, [PRELUDE, source, table(), rest].join('\n'))
  // No contraction, as with NVRTC.
  const flags = ['-std=c++17', '-O3', '-ffp-contract=off', '-shared', '-fPIC']
  const compiled = spawnSync('g++', [...flags, program, '-o', output], { encoding: 'utf8' })
  if (compiled.status !== 0) throw new Error(`g++ does not take the simulation:\n${compiled.stderr}`)
  for (const name of ['libcudnn.so.9', 'libnvrtc.so.12']) symlinkSync(output, path.join(folder, name))
  const library = koffi.load(output)
  return {
    folder,
    simulate: library.func('void simulate(const char *what)'),
    schedule: library.func('void schedule(int seed)'),
    graphLaunches: library.func('int graph_launches()'),
    liveObjects: library.func('int live_objects()'),
    remove: () => rmSync(folder, { recursive: true }),
  }
}
