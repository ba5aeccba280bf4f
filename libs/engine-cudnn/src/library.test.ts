import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { entries, source } from './kernels.ts'
import { compilerFound } from '../test/simulated.ts'

/** Libraries are loaded once a thread, so every test takes the modules anew. */
async function fresh() {
  vi.resetModules()
  return { ...(await import('./library.ts')), ...(await import('./gpu.ts')) }
}

function tried<T>(load: () => T): T | undefined {
  try {
    return load()
  } catch {
    return undefined
  }
}

afterEach(() => vi.unstubAllEnvs())

const refused = (message: RegExp, remedy: RegExp): unknown =>
  expect.objectContaining({
    code: 'E_ENGINE_GPU',
    message: expect.stringMatching(message) as string,
    remedy: expect.stringMatching(remedy) as string,
  })

describe('loading', () => {
  let folder: string
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'convoy-cuda-'))
    vi.stubEnv('CONVOY_CUDA', folder)
    return () => rmSync(folder, { recursive: true })
  })

  it('says where a library is missing and what installs it', async () => {
    const { loadCudnn, loadNvrtc } = await fresh()
    expect(loadCudnn).toThrow(
      refused(/^cuDNN 9 is not in .*convoy-cuda-\w+ \(CONVOY_CUDA\)$/, /pip install nvidia-cudnn-cu12/),
    )
    expect(loadNvrtc).toThrow(refused(/^NVRTC is not in/, /nvidia-cuda-nvrtc-cu12/))
  })

  it('says why a library does not load', async () => {
    writeFileSync(path.join(folder, 'libcudnn.so.9'), 'no library')
    writeFileSync(path.join(folder, 'libcuda.so.1'), 'no library')
    const { loadCudnn, loadDriver, gpuCount } = await fresh()
    expect(loadCudnn).toThrow(
      refused(/libcudnn\.so\.9: .*(invalid ELF header|file too short)/, /pip install/),
    )
    expect(loadDriver).toThrow(refused(/no NVIDIA driver/, /driver/))
    expect(gpuCount()).toBe(0)
  })

  it.skipIf(!compilerFound).for([
    ['that lacks functions', [], /libcudnn\.so\.9 does not fit: .*cudnnGetVersion/],
    ['of another version', ['cudnnGetVersion() { return 100203; }'], /^cuDNN 10\.2\.3 at .* is not 9$/],
  ] as const)('refuses a library %s (skipped where g++ is not installed)', async ([, bodies, message]) => {
    const { loadCudnn, declarations } = await fresh()
    const rest = declarations.cudnn.slice(1).map((text) => `${/(\w+)\(/.exec(text)![1]}() { return 0; }`)
    const text = bodies.length > 0 ? [...bodies, ...rest].map((body) => `long ${body}`) : ['int nothing;']
    const lib = path.join(folder, 'lib')
    mkdirSync(lib)
    writeFileSync(path.join(folder, 'a.c'), text.join('\n'))
    spawnSync('gcc', ['-shared', '-fPIC', path.join(folder, 'a.c'), '-o', path.join(lib, 'libcudnn.so.9')])
    expect(loadCudnn).toThrow(refused(message, /pip install/))
  })

  it('finds the packages of a Python environment', async () => {
    vi.stubEnv('CONVOY_CUDA', '')
    const packages = path.join(folder, 'lib/python3.12/site-packages/nvidia/cudnn/lib')
    mkdirSync(packages, { recursive: true })
    writeFileSync(path.join(packages, 'libcudnn.so.9'), 'no library')
    vi.stubEnv('VIRTUAL_ENV', folder)
    const { loadCudnn } = await fresh()
    const found = tried(loadCudnn)
    // Where cuDNN is installed, the loader's is taken; else the environment's is met, and does not load.
    if (found) expect(found.file).not.toContain(folder)
    else {
      vi.stubEnv('CONVOY_CUDA', folder)
      const { loadCudnn } = await fresh()
      expect(loadCudnn).toThrow(
        refused(/site-packages\/nvidia\/cudnn\/lib\/libcudnn\.so\.9: /, /pip install/),
      )
    }
  })
})

describe('cuDNN 9 itself', () => {
  it('takes the descriptors of a convolution and agrees on shapes, without a GPU', async ({ skip }) => {
    const { loadCudnn, Descriptors } = await fresh()
    const found = tried(loadCudnn)
    if (!found) return skip('cuDNN 9 is not installed (CONVOY_CUDA)')
    for (const type of ['float32', 'bf16'] as const) {
      const descriptors = new Descriptors(found.cudnn, {
        pass: 'forward',
        type,
        tf32: true,
        // TensorFlow's `same` padding of 12×10 by 5×3 with strides 3 and 2: one row before and after, one column after.
        image: [4, 12, 11, 3],
        kernel: [24, 5, 3, 3],
        output: [4, 4, 5, 24],
        padding: [1, 0],
        stride: [3, 2],
      })
      expect(descriptors.outputShape()).toEqual([4, 4, 5, 24])
      descriptors.dispose()
    }
  })
})

describe('NVRTC', () => {
  it.for(['compute_80', 'compute_90', 'sm_80', 'sm_90'])(
    'compiles every kernel for %s, without a GPU',
    async (architecture, { skip }) => {
      const { loadNvrtc, compileCuda } = await fresh()
      if (!tried(loadNvrtc)) return skip('NVRTC is not installed (CONVOY_CUDA)')
      const code = Buffer.from(compileCuda(source, architecture))
      for (const name of entries.keys())
        expect(code.includes(architecture.startsWith('sm') ? name : `.entry ${name}(`)).toBe(true)
    },
  )

  it('tells what it does not understand', async ({ skip }) => {
    const { loadNvrtc, compileCuda } = await fresh()
    if (!tried(loadNvrtc)) return skip('NVRTC is not installed (CONVOY_CUDA)')
    expect(() => compileCuda('nonsense', 'sm_80')).toThrow(
      refused(/could not compile for sm_80: .*error/s, /pip/),
    )
    expect(() => compileCuda(source, 'sm_999')).toThrow(refused(/sm_999/, /newer than NVRTC/))
  })
})

describe('the declarations', () => {
  it('are those of the headers, with their enums', async ({ skip }) => {
    const { loadCudnn, loadNvrtc, declarations, Enum } = await fresh()
    const libraries = [tried(loadCudnn), tried(loadNvrtc)].map((found) => path.dirname(found?.file ?? '.'))
    const include = [
      ...libraries.map((folder) => path.join(folder, '../include')),
      ...libraries.map((folder) => path.join(folder, '../../cuda_runtime/include')),
    ]
    const all = ['cudnn.h', 'cuda.h', 'nvrtc.h']
    if (!compilerFound || !all.every((name) => include.some((folder) => existsSync(path.join(folder, name)))))
      return skip(
        'g++ or the headers of CUDA and cuDNN are not installed (pip install nvidia-cuda-runtime-cu12)',
      )
    const kinds: Record<string, string> = { 'char *': 'void *', uint64_t: 'unsigned long long' }
    const checks = Object.values(declarations)
      .flat()
      .map((text) => {
        const [, result, name, parameters] = /^(.*?)(\w+)\((.*)\)$/.exec(text)!
        const types = [result, ...parameters.split(', ').map((parameter) => parameter.replace(/\w+$/, ''))]
          .map((type) => type.replace('const ', '').trim())
          .filter(Boolean)
          .map((type) => kinds[type] ?? type)
        return `check<${types[0]}${types
          .slice(1)
          .map((type) => `, ${type}`)
          .join('')}>(&${name}, "${name}");`
      })
    const values = Object.entries(Enum).map(
      ([name, value]) => `static_assert(int(${name}) == ${value}, "${name}");`,
    )
    const program = `
      #include <cuda.h>
      #include <cudnn.h>
      #include <nvrtc.h>
      #include <type_traits>
      #include <cstdio>
      // An enum is passed as an int, and every address alike. unsigned long and unsigned long long are of one size here.
      template <class T> using Plain = std::conditional_t<std::is_pointer_v<T>, void *, std::conditional_t<std::is_enum_v<T>, int,
        std::conditional_t<std::is_same_v<T, unsigned long>, unsigned long long, T>>>;
      int wrong = 0;
      template <class R, class... P, class Q, class... O> void check(Q (*)(O...), const char *name) {
        if (!std::is_same_v<void(Plain<R>, Plain<P>...), void(Plain<Q>, Plain<O>...)>) { wrong++; puts(name); }
      }
      ${values.join('\n')}
      int main() { ${checks.join('\n')} return wrong; }`
    const folder = mkdtempSync(path.join(tmpdir(), 'convoy-headers-'))
    try {
      const [file, binary] = ['check.cpp', 'check'].map((name) => path.join(folder, name))
      writeFileSync(file, program)
      // cuDNN's headers want the runtime's, and that the compiler's, for no more than this.
      const stream =
        '#include <cuda.h>\n#include <library_types.h>\ntypedef CUstream cudaStream_t;\ntypedef CUgraph cudaGraph_t;\n'
      for (const name of ['cuda_runtime.h', 'cuda_runtime_api.h'])
        writeFileSync(path.join(folder, name), stream)
      const flags = ['-std=c++17', '-w', '-Wl,--unresolved-symbols=ignore-all']
      const folders = [folder, ...include].map((name) => `-I${name}`)
      const compiled = spawnSync('g++', [...flags, ...folders, file, '-o', binary], { encoding: 'utf8' })
      expect(compiled.stderr.slice(0, 1000)).toBe('')
      expect(spawnSync(binary, { encoding: 'utf8' })).toMatchObject({ status: 0, stdout: '' })
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
