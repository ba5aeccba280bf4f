import { Arena } from '@convoy/arena'
import { buildModel, initialise, muonKernels, standardisedKernels, trainedLayout } from '@convoy/model'
import { Muon, NesterovSgd, plain, Standardised, type Parametrisation } from '@convoy/optim'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: {
    width: { type: 'string', default: '1' },
    times: { type: 'string', default: '200' },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  console.log(`npm run bench:update -- [options]: milliseconds that an update takes the coordinator, on one core
  --width N  All-CNN-C's width (1)
  --times N  updates of each kind (200)`)
  process.exit(0)
}

const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: Number(values.width) })
const { views, size } = trainedLayout(model)

/** Tells the time that `body` takes: at the least by the clock, and in the mean of the processor, which others may use too. */
function measure(name: string, body: () => void): void {
  const times = Number(values.times)
  for (let i = 0; i < 20; i++) body()
  let least = Infinity
  const used = process.cpuUsage()
  for (let i = 0; i < times; i++) {
    const begun = performance.now()
    body()
    least = Math.min(least, performance.now() - begun)
  }
  const { user, system } = process.cpuUsage(used)
  const mean = (user + system) / 1000 / times
  console.log(
    `${name}: ${least.toFixed(2)} ms at the least, ${mean.toFixed(2)} ms of processor time in the mean`,
  )
}

/** An update of all parameters. */
function measureUpdate(name: string, parametrisation: (arena: Arena) => Parametrisation): void {
  const arena = new Arena(size)
  const how = parametrisation(arena)
  const start = how.fromKernels(initialise(model, 'heUniform', 1))
  const sgd = new NesterovSgd(arena, start, new Float32Array(how.size), {
    ...{ momentum: 0.9, nesterov: true, weightDecay: 5e-4, clipNorm: 0, parametrisation: how },
    decayed: views.filter(({ role }) => role === 'kernel').map(({ offset, size }) => [offset, size] as const),
  })
  const gradient = arena.hold(Float32Array.from({ length: size }, (_, i) => Math.sin(i * i) / 1000))
  measure(name, () => sgd.update(gradient, 128, 0.01))
}

/** An update by Muon, with so many iterations. */
function measureMuon(iterations: number): void {
  const arena = new Arena(size)
  const kernels = muonKernels(model, { lastRate: 0.4 })
  const muon = new Muon(arena, initialise(model, 'heUniform', 1), new Float32Array(size), {
    ...{ kernels, momentum: 0.9, iterations, clipNorm: 0, biasRate: 0.6 },
  })
  const gradient = arena.hold(Float32Array.from({ length: size }, (_, i) => Math.sin(i * i) / 1000))
  measure(`muon, ${iterations} iterations`, () => muon.update(gradient, 128, 0.035))
}

console.log(`${size.toLocaleString('en')} parameters`)
measureUpdate('plain', () => plain(size))
measureUpdate('standardised', (arena) => new Standardised(arena, standardisedKernels(model)))
measureMuon(5)
measureMuon(3)
