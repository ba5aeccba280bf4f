// Prints the SHA-256 of one gradient of a backend, computed in this thread and in two worker threads at once (on WebGPU, where
// that takes long, in one worker thread):
//   processes.fixture.mjs cpu|wasm|tensorflow|webgpu
// With a number of steps, prints instead how many bytes the process takes after a quarter of them and at the end:
//   node --expose-gc processes.fixture.mjs tensorflow 2000
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { buildModel, type ModelSpec } from '@convoy/model'
import { drawLeaf, type Engine } from '@convoy/engine'
import { createEngine } from '../src/create.ts'

const allCnn = buildModel('all-cnn-c', { input: [16, 16, 3], classes: 10, width: 0.125, inputDropout: 0.2 })
/** Few shaders: a software device compiles each for seconds. */
const few: ModelSpec = {
  ...allCnn,
  input: [8, 8, 3],
  layers: [
    { kind: 'conv2d', name: 'a', filters: 32, kernel: [3, 3], stride: [1, 1], padding: 'same' },
    { kind: 'relu' },
    { kind: 'dropout', rate: 0.5 },
    { kind: 'conv2d', name: 'b', filters: 32, kernel: [3, 3], stride: [1, 1], padding: 'same' },
    { kind: 'relu' },
    { kind: 'conv2d', name: 'c', filters: 10, kernel: [1, 1], stride: [1, 1], padding: 'same' },
    { kind: 'globalAveragePool' },
  ],
}

type Backend = 'cpu' | 'wasm' | 'tensorflow' | 'webgpu'

const open = (backend: Backend): Promise<Engine> =>
  createEngine({
    engine: backend === 'webgpu' ? backend : `tfjs-${backend}`,
    precision: 'float32',
    threads: 1,
    device: 0,
    gpu: false,
  })

async function compute(backend: Backend): Promise<string> {
  const engine = await open(backend)
  const compiled = await engine.compile(model, 4)
  const { parameters, batch, masks } = drawLeaf(model, 4, 1)
  const gradient = new Float32Array(parameters.length)
  compiled.load(parameters)
  await compiled.gradient(batch, masks, gradient)
  engine.dispose()
  return createHash('sha256').update(new Uint8Array(gradient.buffer)).digest('hex')
}

/** Takes steps as a worker does, and gives the resident bytes after each quarter of them. */
async function measureMemory(backend: Backend, steps: number): Promise<void> {
  const engine = await open(backend)
  const compiled = await engine.compile(model, 4)
  const { parameters, batch, masks } = drawLeaf(model, 4, 1)
  const gradient = new Float32Array(parameters.length)
  for (let step = 1; step <= steps; step++) {
    compiled.load(parameters)
    await compiled.gradient(batch, masks, gradient)
    if (step % (steps / 4) !== 0) continue
    globalThis.gc!()
    console.log(process.memoryUsage.rss())
  }
  engine.dispose()
}

const [backend, steps] = (isMainThread ? process.argv.slice(2) : [workerData as string]) as [Backend, string?]
const model = backend === 'webgpu' ? few : allCnn

if (steps !== undefined) {
  await measureMemory(backend, Number(steps))
} else if (isMainThread) {
  const threads = backend === 'webgpu' ? 1 : 2
  const workers = Array.from(
    { length: threads },
    () => new Worker(fileURLToPath(import.meta.url), { workerData: backend }),
  )
  const hashes = workers.map((worker) => new Promise((resolve) => worker.once('message', resolve)))
  if (backend !== 'webgpu') hashes.push(compute(backend))
  console.log((await Promise.all(hashes)).join('\n'))
} else {
  parentPort!.postMessage(await compute(backend))
}
