// Prints the SHA-256 of one gradient of a backend, computed in this thread and in two worker threads at once:
//   processes.fixture.mjs cpu|wasm
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { buildModel } from '@convoy/model'
import { drawLeaf } from '../reference.ts'
import type { Backend } from './backend.ts'
import { createTfjsEngine } from './engine.ts'

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

if (isMainThread) {
  const backend = process.argv[2] as Backend
  const workers = [1, 2].map(() => new Worker(fileURLToPath(import.meta.url), { workerData: backend }))
  const hashes = workers.map((worker) => new Promise((resolve) => worker.once('message', resolve)))
  console.log((await Promise.all([compute(backend), ...hashes])).join('\n'))
} else {
  parentPort!.postMessage(await compute(workerData as Backend))
}
