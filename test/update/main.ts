import { Arena } from '@convoy/arena'
import { buildModel, initialise, muonKernels, standardisedKernels, trainedLayout } from '@convoy/model'
import { MovingAverage, Muon, NesterovSgd, plain, Standardised, type Parametrisation } from '@convoy/optim'
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
  --times N  updates of each kind (200); the least and the median time are told`)
  process.exit(0)
}

const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: Number(values.width) })
const { views, size } = trainedLayout(model)

function measure(name: string, body: () => void): void {
  const times: number[] = []
  for (let i = 0; i < Number(values.times); i++) {
    const begun = performance.now()
    body()
    times.push(performance.now() - begun)
  }
  times.sort((a, b) => a - b)
  console.log(
    `${name}: ${times[0].toFixed(2)} ms at the least, ${times[times.length >> 1].toFixed(2)} ms in the median`,
  )
}

/** An update of all parameters, and its parts. */
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
const arena = new Arena(size)
const average = new MovingAverage(arena, new Float32Array(size), { decay: 0.99, every: 1 })
const parameters = arena.hold(initialise(model, 'heUniform', 1))
measure('average', () => average.update(parameters, 1))
