import { loadDataset, type Split } from '@convoy/data'
import { buildModel, freeze, trainedLayout } from '@convoy/model'
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import sharp from 'sharp'
import { Convoy, scratch, type Line } from '../convoy.ts'

const { values } = parseArgs({
  options: {
    data: { type: 'string', default: process.env['CONVOY_DATA'] || 'cifar10' },
    classes: { type: 'string', default: 'cat,dog,horse' },
    images: { type: 'string', default: '200' },
    width: { type: 'string', default: '0.25' },
    before: { type: 'string', default: '20000' },
    epochs: { type: 'string', default: '10' },
    seeds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    runs: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  console.log(`npm run bench:finetune -- [options]: fine-tuning beside training from scratch, and what frozen layers save
  --data SOURCE    CIFAR-10, as for convoy train (CONVOY_DATA, or cifar10)
  --classes A,B,…  of the small set (cat,dog,horse)
  --images N       of each class in the small set: the last of the training images; all test images (200)
  --width W        of the networks that are compared (0.25)
  --before N       training images of the run whose weights are tuned: the first, one epoch of them (20000)
  --epochs N       on the small set, for each of the three ways alike (10)
  --seeds N        of each way (3)
  --rounds N       of the step's time, at full width; 0 leaves it out (3)
  --runs DIR       where set and runs are kept; those that are there are not made again
  --json           one JSON object a line`)
  process.exit(0)
}

const { folder, remove } = scratch()
const runs = path.resolve(values.runs ?? folder)
const small = path.join(runs, 'images')
const FROZEN = 'all-but-2'
const tell = (line: Record<string, unknown>) => console.log(values.json ? JSON.stringify(line) : line)
const middle = (numbers: number[]) => numbers.sort((a, b) => a - b)[numbers.length >> 1]
const mean = (numbers: number[]) => numbers.reduce((sum, one) => sum + one, 0) / numbers.length

/** Writes some images of some classes as a folder. */
async function makeSet(): Promise<void> {
  if (existsSync(small)) return
  const { train, test, classes, shape } = await loadDataset(values.data, {})
  const [height, width, channels] = shape
  const write = async ({ labels, pixels }: Split, split: string, most: number) => {
    for (const name of values.classes.split(',')) {
      const into = path.join(small, split, name)
      mkdirSync(into, { recursive: true })
      const chosen = [...labels.keys()].filter((i) => classes[labels[i]] === name).slice(-most)
      for (const i of chosen) {
        const size = height * width * channels
        await sharp((pixels as Uint8Array).subarray(i * size, (i + 1) * size), {
          raw: { width, height, channels: channels as 3 },
        })
          .png({ compressionLevel: 1 })
          .toFile(path.join(into, `${String(i).padStart(5, '0')}.png`))
      }
    }
  }
  await write(train, 'train', Number(values.images))
  await write(test, 'test', Infinity)
}

/** Trains, and gives the events. */
async function train(...args: string[]): Promise<Line[]> {
  const convoy = new Convoy(['train', ...args, '--runs', runs, '--port', '0', '--json'])
  await convoy.done()
  return convoy.lines
}

const rate = ['--schedule', 'oneCycle', '--learning-rate', '0.03', '--flip', '--shift', '2', '--dropout', '0']

try {
  mkdirSync(runs, { recursive: true })
  await makeSet()
  const checkpoints = path.join(runs, 'before', 'checkpoints')
  if (!existsSync(checkpoints)) {
    const about = ['--data', values.data, '--limit-train', values.before, '--epochs', '1']
    const done = (await train(...about, ...rate, '--width', values.width, '--name', 'before')).at(-1)!
    tell({ event: 'before', testAccuracy: done['testAccuracy'], steps: done['step'] })
  }
  const init = path.join(checkpoints, readdirSync(checkpoints).at(-1)!)

  const ways: Record<string, string[]> = {
    scratch: [],
    init: ['--init', init],
    frozen: ['--init', init, '--freeze', FROZEN],
  }
  for (const [way, how] of Object.entries(ways)) {
    const accuracies: number[] = []
    for (let seed = 1; seed <= Number(values.seeds); seed++) {
      const about = [
        '--data',
        small,
        '--epochs',
        values.epochs,
        '--batch-size',
        '32',
        '--evaluate-every',
        '0',
      ]
      const name = ['--seed', String(seed), '--name', `${way}-${seed}`]
      const lines = await train(...about, ...rate, '--width', values.width, ...name, ...how)
      accuracies.push(lines.at(-1)!['testAccuracy'] as number)
    }
    tell({ event: 'accuracy', way, mean: mean(accuracies), accuracies })
  }

  // The engine's time for a leaf's gradient, over a step of one worker; both in turn, since a machine's speed wanders.
  const ratios: number[] = []
  for (let round = 0; round < Number(values.rounds); round++) {
    const seconds: number[] = []
    for (const how of [[], ['--freeze', FROZEN]]) {
      const about = ['--data', small, '--steps', '7', '--batch-size', '64', '--evaluate-every', '0']
      const name = ['--name', `step-${how.length}-${round}`, '--workers', '1']
      const lines = await train(...about, ...name, ...how)
      const steps = lines.filter(({ event }) => event === 'step').slice(2)
      seconds.push(middle(steps.map(({ computeSeconds }) => computeSeconds as number)))
    }
    ratios.push(seconds[0] / seconds[1])
    tell({ event: 'round', all: seconds[0], frozen: seconds[1], faster: seconds[0] / seconds[1] })
  }
  const full = buildModel('all-cnn-c', { input: [32, 32, 3], classes: values.classes.split(',').length })
  const bytes = (model: typeof full) => 4 * trainedLayout(model).size
  const share = bytes(freeze(full, FROZEN)) / bytes(full)
  tell({ event: 'summary', faster: middle(ratios), gradientBytes: share })
} finally {
  remove()
}
