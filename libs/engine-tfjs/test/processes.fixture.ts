// Prints the SHA-256 of one gradient of a backend, computed in this thread and in two worker threads at once:
//   processes.fixture.mjs cpu|wasm|tensorflow
// With a number of steps, prints instead how many bytes the process takes after a quarter of them and at the end:
//   node --expose-gc processes.fixture.mjs tensorflow 2000
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { buildModel } from '@convoy/model'
import { drawLeaf } from '@convoy/engine'
import type { Backend } from '../src/backend.ts'
import { createTfjsEngine } from '../src/engine.ts'

const model = buildModel('all-cnn-c', { input: [16, 16, 3], classes: 10, width: 0.125, inputDropout: 0.2 })

async function compute(backend: Backend): Promise<string> {
  const engine = await createTfjsEngine({ backend, gpu: false })
  const compiled = await engine.compile(model, 4)
  const { parameters, batch, masks } = drawLeaf(model, 4, 1)
  const gradient = new Float32Array(parameters.length)
  compiled.load(parameters)
  compiled.gradient(batch, masks, gradient)
  engine.dispose()
  return createHash('sha256').update(new Uint8Array(gradient.buffer)).digest('hex')
}

/** Takes steps as a worker does, and gives the resident bytes after each quarter of them. */
async function measureMemory(backend: Backend, steps: number): Promise<number[]> {
  const engine = await createTfjsEngine({ backend, gpu: false })
  const compiled = await engine.compile(model, 4)
  const { parameters, batch, masks } = drawLeaf(model, 4, 1)
  const gradient = new Float32Array(parameters.length)
  const resident: number[] = []
  for (let step = 1; step <= steps; step++) {
    compiled.load(parameters)
    compiled.gradient(batch, masks, gradient)
    if (step % (steps / 4) !== 0) continue
    globalThis.gc!()
    resident.push(process.memoryUsage.rss())
  }
  engine.dispose()
  return resident
}

const [backend, steps] = process.argv.slice(2) as [Backend, string | undefined]
if (steps !== undefined) {
  console.log((await measureMemory(backend, Number(steps))).join('\n'))
} else if (isMainThread) {
  const workers = [1, 2].map(() => new Worker(fileURLToPath(import.meta.url), { workerData: backend }))
  const hashes = workers.map((worker) => new Promise((resolve) => worker.once('message', resolve)))
  console.log((await Promise.all([compute(backend), ...hashes])).join('\n'))
} else {
  parentPort!.postMessage(await compute(workerData as Backend))
}
