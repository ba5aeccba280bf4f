// A process that computes one gradient on oneDNN, says its hash, and ends in one of several ways:
//   lifecycle.fixture.mjs THREADS PRECISION return|dispose|exit|terminate|interrupt
// The last three compute in three worker threads: and let them go, terminate them idle, or terminate them as they compute.
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { buildModel } from '@convoy/model'
import { createOnednnEngine, type OnednnOptions } from '../src/engine.ts'
import { drawLeaf } from '@convoy/engine'

type Ending = 'return' | 'dispose' | 'exit' | 'terminate' | 'interrupt'

interface Job {
  readonly options: OnednnOptions
  readonly ending: Ending
}

const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 0.5, inputDropout: 0.2 })

async function compute({ options, ending }: Job, tell: (hash: string) => void): Promise<void> {
  const engine = await createOnednnEngine(options)
  const compiled = await engine.compile(model, 4)
  const { parameters, batch, masks } = drawLeaf(model, 4, 1)
  const gradient = new Float32Array(parameters.length)
  compiled.load(parameters)
  compiled.gradient(batch, masks, gradient)
  tell(createHash('sha256').update(new Uint8Array(gradient.buffer)).digest('hex'))
  if (ending === 'dispose') engine.dispose()
  while (ending === 'interrupt') compiled.gradient(batch, masks, gradient)
}

if (isMainThread) {
  const [threads, precision, ending] = process.argv.slice(2)
  const job = { options: { threads: Number(threads), precision }, ending } as Job
  if (ending === 'return' || ending === 'dispose') {
    await compute(job, (hash) => console.log(hash))
  } else {
    const workers = [1, 2, 3].map(() => new Worker(fileURLToPath(import.meta.url), { workerData: job }))
    const hashes = await Promise.all(
      workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))),
    )
    for (const hash of hashes) console.log(hash)
    if (ending === 'exit') process.exit(0)
    await Promise.all(workers.map((worker) => worker.terminate()))
  }
} else {
  // A listener keeps the thread alive until it is terminated.
  parentPort!.on('message', () => undefined)
  await compute(workerData as Job, (hash) => parentPort!.postMessage(hash))
}
