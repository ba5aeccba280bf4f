import { RandomStream } from '@convoy/random'
import { describe, expect, it } from 'vitest'
import { WorkersWanted, worthwhile, type StepTimes } from './autoscale.ts'
import { cutLeaves } from './plan.ts'

/** A cluster that is only simulated: every time in it follows from these. */
interface Simulated {
  /** Leaves of a batch, of 16 images. */
  leaves: number
  /** Images a second of one worker. */
  speed: number
  /** A worker's link, and the coordinator's, in Mbit/s. */
  link: number
  coordinatorLink: number
}

/** Bytes of All-CNN-C's parameters, and of its gradient. */
const FRAME = 5.48e6
const UPDATE = 0.002
const SUM = 0.0005
const MOST = 64

/**
 * One step, event by event: frames leave the coordinator side by side on its one link, each crosses its worker's link, is
 * computed on, and comes back the same way. `jitter` gives a factor for each time.
 */
function simulate(cluster: Simulated, workers: number, jitter: () => number = () => 1): StepTimes {
  const { leaves, speed, link, coordinatorLink } = cluster
  const seconds = (megabits: number) => (8 * FRAME) / (1e6 * megabits)
  const shares = cutLeaves(leaves, Array<number>(workers).fill(1)).filter((share) => share > 0)
  const sent = shares.reduce((sum) => sum + seconds(coordinatorLink) * jitter(), 0)
  let computeSeconds = 0
  const back = shares.map((share) => {
    const compute = ((share * 16) / speed) * jitter()
    computeSeconds = Math.max(computeSeconds, compute)
    return sent + seconds(link) * jitter() + compute + seconds(link) * jitter()
  })
  let received = 0
  for (const at of back.sort((a, b) => a - b))
    received = Math.max(received, at) + seconds(coordinatorLink) * jitter() + SUM
  const updateSeconds = UPDATE * jitter()
  return { workers: shares.length, leaves, seconds: received + updateSeconds, computeSeconds, updateSeconds }
}

/** The optimum, by trying every number of workers. */
const optimum = (cluster: Simulated, worth: number) =>
  worthwhile((n) => simulate(cluster, n).seconds, worth, MOST)

/** Lets the number of workers follow what is wanted, and gives every number that was wanted after each step. */
function follow(cluster: Simulated, start: number, steps: number, jitter?: () => number): number[] {
  const scaler = new WorkersWanted(0.05, MOST)
  let workers = start
  const history: number[] = []
  for (let step = 0; step < steps; step++) {
    scaler.observe(simulate(cluster, workers, jitter))
    workers = scaler.wanted ?? workers
    history.push(workers)
  }
  return history
}

const clusters: Simulated[] = [8, 64, 512].flatMap((leaves) =>
  [20, 120, 2_000].flatMap((speed) =>
    [8, 100, 1_000].flatMap((link) =>
      [1_000, 10_000].map((coordinatorLink) => ({ leaves, speed, link, coordinatorLink })),
    ),
  ),
)

describe('WorkersWanted', () => {
  it('wants nothing before it has seen enough', () => {
    const scaler = new WorkersWanted(0.05, MOST)
    for (let step = 0; step < 14; step++) scaler.observe(simulate(clusters[0], 2))
    expect(scaler.wanted).toBeUndefined()
    scaler.observe(simulate(clusters[0], 2))
    expect(scaler.wanted).toBeGreaterThan(0)
  })

  it.each(clusters)(
    'is within one of the optimum: $leaves leaves, $speed images/s, $link and $coordinatorLink Mbit/s',
    (cluster) => {
      const best = optimum(cluster, 0.05)
      for (const start of [1, 5, 64]) {
        const wanted = follow(cluster, start, 600).at(-1)!
        expect(Math.abs(wanted - best), `wants ${wanted} from ${start}, best ${best}`).toBeLessThanOrEqual(1)
      }
    },
  )

  it.each(clusters)(
    'does not flap when times jitter by 20 %: $leaves leaves, $speed images/s, $link and $coordinatorLink Mbit/s',
    (cluster) => {
      const stream = new RandomStream(7, 1)
      const history = follow(cluster, 4, 2_000, () => 0.8 + 0.4 * stream.uniform())
      const settled = history.slice(1_000)
      expect(new Set(settled).size).toBe(1)
    },
  )

  it('passes over the smaller batch at the end of an epoch', () => {
    const [cluster] = clusters
    const scaler = new WorkersWanted(0.05, MOST)
    for (let step = 0; step < 100; step++) {
      scaler.observe(simulate(cluster, 2))
      scaler.observe({ ...simulate(cluster, 2), leaves: 1, seconds: 100 })
    }
    expect(scaler.model?.leaves).toBe(cluster.leaves)
    expect(scaler.model!.wire).toBeLessThan(100)
  })

  it('wants fewer where a worker must save more', () => {
    const cluster = { leaves: 512, speed: 120, link: 1_000, coordinatorLink: 10_000 }
    expect(optimum(cluster, 0.2)).toBeLessThan(optimum(cluster, 0.05))
  })
})
