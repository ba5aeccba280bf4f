import { Arena } from '@convoy/arena'
import { buildModel } from '@convoy/model'
import { readWorkerMessage, SumFrames } from '@convoy/protocol'
import {
  encodedBytes,
  Encoder,
  NodeSummer,
  ReductionTree,
  split,
  type Encoding,
  type Node,
  type Totals,
} from '@convoy/reduction'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Answer } from '../cluster/index.ts'
import { RelayJob } from './job.ts'
import { AskedNode, leafOf, type AskedWork, type Site } from './request.ts'

const SIZE = 5
const SEED = 3
const STEP = 7
const LEAF = 4
const VOLUME = 8 * 8 * 3
const model = buildModel('all-cnn-c', { input: [8, 8, 3], classes: 10, width: 0.05 })

interface Rounded {
  readonly encoding: Exclude<Encoding, 'float32'>
  readonly leaves: number
}

function siteOf(rounding?: Rounded, rounds?: Site['welcome']['rounds']): Site {
  const welcome: Site['welcome'] = {
    ...{ kind: 'welcome', version: 1, name: 'relay', run: 'run', model, preprocessing: {}, augmentation: {} },
    ...{ seed: SEED, microBatch: LEAF, smaller: [{ size: 4, microBatch: 2 * LEAF }], fingerprint: 'f' },
    ...{ samples: true, down: 'float32', relay: { verify: 0, ...(rounding && { rounding }) }, rounds },
  }
  const [arena, frames] = [new Arena(SIZE), new SumFrames(SIZE, SEED)]
  return { welcome, arena, frames, samples: undefined, zeros: new Float32Array(SIZE) }
}

/** A request for leaves [lo, hi), the last of which has so many samples, with images whose every pixel is their number. */
function asked(
  site: Site,
  ...[lo, hi, change = {}, last]: [lo: number, hi: number, change?: Partial<AskedWork>, last?: number]
): AskedNode {
  const work: AskedWork = {
    ...{ kind: 'work', task: 'gradient', id: 1, epoch: 0, step: STEP, lo, hi, count: 0, pixels: 'uint8' },
    ...{ encoding: 'float32', ...change },
  }
  const leaf = change.task === 'evaluate' ? LEAF : leafOf(site.welcome, work)
  const count = (hi - lo - 1) * leaf + (last ?? leaf)
  const payload = new Uint8Array(count * (8 + VOLUME))
  const from = (_: unknown, i: number) => 100 + i
  payload.set(new Uint8Array(Uint32Array.from({ length: count }, from).buffer))
  payload.set(new Uint8Array(Int32Array.from({ length: count }, (_, i) => i % 10).buffer), 4 * count)
  for (let i = 0; i < count; i++) payload.fill(i, 8 * count + i * VOLUME, 8 * count + (i + 1) * VOLUME)
  return new AskedNode(site, { ...work, count }, payload)
}

/** A leaf's gradient, whose sums depend on the order in which they are taken. */
const gradient = (leaf: number) =>
  Float32Array.from({ length: SIZE }, (_, k) => Math.sin(1 + leaf * 7.3 + k) * 10 ** ((leaf * 5 + k) % 7))

/** What a worker gives for leaves [lo, hi) of so many samples. */
function sum(lo: number, hi: number, count: number, encoding: Encoding): [Answer, Uint8Array] {
  const summer = new NodeSummer(SIZE)
  summer.begin(lo, hi)
  for (let leaf = lo; leaf < hi; leaf++) {
    summer.buffer().set(gradient(leaf))
    summer.push(leaf + 0.1, 0, 0)
  }
  const { gradient: total, loss } = summer.result()
  const payload = new Uint8Array(encodedBytes(encoding, SIZE))
  new Encoder(SIZE).encode(encoding, total.values, { seed: SEED, step: STEP, lo, hi }, payload)
  return [{ kind: 'gradient', id: 1, step: STEP, lo, hi, seconds: 1, count, loss, correct: 0 }, payload]
}

/** Leaves [lo, hi) cut where the tree splits, as chance has it, into nodes of so many leaves at most. */
function cut(lo: number, hi: number, chance: Iterator<boolean>, most = Infinity): Node[] {
  if (hi - lo === 1 || (hi - lo <= most && chance.next().value)) return [[lo, hi]]
  const middle = split(lo, hi)
  return [...cut(lo, middle, chance, most), ...cut(middle, hi, chance, most)]
}

/** What goes up: the message and its payload. */
function readUp({ frame, length }: ReturnType<AskedNode['answer']>) {
  return readWorkerMessage(new Uint8Array(frame, 0, length))
}

describe('a node that a relay is asked for', () => {
  it('goes up such that the root has the bits that it has without relays, whoever is asked for what', () => {
    const of = fc.record({
      wire: fc.constantFrom<Encoding>('float32', 'bf16', 'int8'),
      leaves: fc.integer({ min: 1, max: 20 }),
      rounded: fc.constantFrom(1, 2, 4),
      chance: fc.infiniteStream(fc.boolean()),
    })
    fc.assert(
      fc.property(of, ({ wire, leaves, rounded, chance }) => {
        const rounding = wire === 'float32' ? undefined : { encoding: wire, leaves: rounded }
        const treeOf = () => {
          const tree = new ReductionTree(new Arena(SIZE), rounding && { ...rounding, seed: SEED })
          tree.begin(leaves, STEP)
          return tree
        }
        // A worker is given no more than what is rounded as one.
        const most = rounding?.leaves
        const [flat, relayed] = [treeOf(), treeOf()]
        for (const [lo, hi] of cut(0, leaves, chance, most)) {
          const [totals, payload] = sum(lo, hi, (hi - lo) * LEAF, flat.encoding(lo, hi))
          flat.accept(lo, hi, payload, totals as Totals)
        }
        const site = siteOf(rounding)
        for (const [lo, hi] of cut(0, leaves, chance)) {
          const node = asked(site, lo, hi, { encoding: relayed.encoding(lo, hi) })
          for (const [a, b] of cut(lo, hi, chance, most).reverse())
            node.accept(...sum(a, b, (b - a) * LEAF, node.encoding(a, b)))
          expect(node.complete).toBe(true)
          const { message, payload } = readUp(node.answer(-Infinity, 1))
          relayed.accept(lo, hi, payload.slice(), message as Totals & typeof message)
        }
        expect(relayed.result().loss).toBe(flat.result().loss)
        expect(relayed.result().count).toBe(leaves * LEAF)
        expect(relayed.result().gradient.values).toEqual(flat.result().gradient.values)
      }),
    )
  })

  it('hands each worker its own samples, the last leaf as long as it is', () => {
    const node = asked(siteOf(), 8, 12, {}, 3)
    expect([node.samples(8, 10), node.samples(10, 12), node.samples(11, 12)]).toEqual([8, 7, 3])
    const { pixels, payloads } = node.request(10, 12, true)
    expect(pixels).toBe('uint8')
    const [ids, labels, images] = payloads as [Uint32Array, Int32Array, Uint8Array]
    expect([...ids]).toEqual([108, 109, 110, 111, 112, 113, 114])
    expect([...labels]).toEqual([8, 9, 0, 1, 2, 3, 4])
    expect(images.length).toBe(7 * VOLUME)
    expect([images[0], images.at(-1)]).toEqual([8, 14])
    expect(node.request(10, 12, false)).toEqual({ pixels: 'none', payloads: [ids] })
  })

  it('is refused where it is for images that are not here', () => {
    expect(() => asked(siteOf(), 0, 2, { pixels: 'none' })).toThrow('there is no data set here')
  })

  it('takes no answer with other counts, nor of leaves that it has', () => {
    const node = asked(siteOf(), 4, 8)
    const take = (lo: number, hi: number, count: number) => () =>
      node.accept(...sum(lo, hi, count, 'float32'))
    expect(take(4, 6, 2 * LEAF + 1)).toThrow(expect.objectContaining({ code: 'E_GRADIENT' }))
    take(4, 6, 2 * LEAF)()
    expect(take(4, 6, 2 * LEAF)).toThrow(expect.objectContaining({ code: 'E_NOT_ASKED' }))
    expect(take(5, 7, 2 * LEAF)).toThrow(expect.objectContaining({ code: 'E_NOT_ASKED' }))
    take(6, 8, 2 * LEAF)()
    expect(node.complete).toBe(true)
    // A worker below was wrong.
    node.restart()
    expect(node.complete).toBe(false)
    take(4, 8, 4 * LEAF)()
    expect(node.complete).toBe(true)
  })

  it('says of a round how long its workers would take if none were idle', () => {
    const optimizer = { kind: 'sgd' } as unknown as NonNullable<Site['welcome']['rounds']>['optimizer']
    const site = siteOf(undefined, { steps: 1, batchSize: LEAF, optimizer })
    const node = asked(site, 0, 2, { round: { step: 0, rates: [1] } })
    for (const leaf of [0, 1]) node.accept(...sum(leaf, leaf + 1, LEAF, 'float32'))
    expect(readUp(node.answer(-Infinity, 8)).message).toMatchObject({ seconds: 2 / 8 })
  })

  it('goes up as one that is not finite where nobody below has another', () => {
    const { message } = readUp(asked(siteOf(), 0, 2).notFinite())
    expect(message).toMatchObject({ kind: 'gradient', lo: 0, hi: 2, loss: NaN })
  })

  it('goes up as logits where that is what is asked for, if they have the right size', () => {
    const node = asked(siteOf(), 0, 1, { task: 'evaluate' }, 6)
    const answer = { kind: 'evaluation' as const, id: 1, step: STEP, lo: 0, hi: 1, seconds: 1 }
    const logits = Uint8Array.from({ length: 6 * 4 * 10 }, (_, i) => i)
    const short = () => node.accept(answer, logits.subarray(4))
    expect(short).toThrow(expect.objectContaining({ code: 'E_MESSAGE' }))
    expect(node.complete).toBe(false)
    node.accept(answer, logits)
    expect(readUp(node.answer(0, 1)).payload).toEqual(logits)
  })
})

describe('the job of a relay', () => {
  const optimizer = { kind: 'sgd' } as unknown as NonNullable<Site['welcome']['rounds']>['optimizer']
  it.each([
    { of: 'a step', change: {}, rounding: undefined, rounds: undefined, largest: 256 },
    { of: 'small images', change: { size: 4 }, rounding: undefined, rounds: undefined, largest: 128 },
    { of: 'a step that is rounded', change: {}, rounding: 4, rounds: undefined, largest: 4 },
    {
      of: 'a round',
      change: { round: { step: 0, rates: [1] } },
      rounding: undefined,
      rounds: 8,
      largest: 16,
    },
  ])('gives a worker nodes as large as without a relay: $of', ({ change, rounding, rounds, largest }) => {
    const site = siteOf(
      rounding === undefined ? undefined : { encoding: 'bf16', leaves: rounding },
      rounds === undefined ? undefined : { steps: rounds, batchSize: 8, optimizer },
    )
    const job = new RelayJob(site, [asked(site, 0, 2, change)], () => {})
    expect(job.largest).toBe(largest)
    expect(job.cost).toBe('size' in change ? 1 / 4 : 1)
  })

  it('has all nodes of a step, and tells whose an answer is', () => {
    const site = siteOf()
    const accepted: AskedNode[] = []
    const [first, second] = [asked(site, 0, 2), asked(site, 6, 7)]
    const job = new RelayJob(site, [first], (node) => accepted.push(node))
    expect(job.takes(second)).toBe(true)
    expect(job.takes(asked(site, 6, 7, { step: STEP + 1 }))).toBe(false)
    expect(job.takes(asked(site, 6, 7, { size: 4 }))).toBe(false)
    job.nodes.push(second)
    job.accept(...sum(6, 7, LEAF, 'float32'))
    job.accept(...sum(1, 2, LEAF, 'float32'))
    expect(accepted).toEqual([second, first])
    expect([first.complete, second.complete]).toEqual([false, true])
  })
})
