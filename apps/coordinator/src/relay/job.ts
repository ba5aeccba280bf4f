import { FORWARD_COST, type Answer, type Job, type WorkRequest } from '../cluster/index.ts'
import type { Encoding } from '@convoy/reduction'
import { largestNode } from '../training/index.ts'
import { leafOf, type AskedNode, type Site } from './request.ts'

/** The nodes that are asked for of one step, as the one job of the workers below. */
export class RelayJob implements Job {
  readonly nodes: AskedNode[]
  readonly task: Job['task']
  readonly planned: boolean
  readonly epoch: number
  readonly step: number
  readonly first: number
  readonly units: number
  readonly largest: number
  /** Another relay below is given whatever this one is. */
  readonly largestSum = Infinity
  readonly size: Job['size']
  readonly cost: number
  readonly round: Job['round']
  readonly #accepted: (node: AskedNode) => void

  /** @param accepted Called after each answer that was taken, with the node that it is of. */
  constructor(
    { welcome }: Site,
    nodes: readonly [AskedNode, ...AskedNode[]],
    accepted: (node: AskedNode) => void,
  ) {
    this.nodes = [...nodes]
    this.#accepted = accepted
    const { work } = nodes[0]
    const { task, epoch, step, lo, hi, size, round } = work
    const [full] = welcome.model.input
    this.task = task
    this.planned = task === 'gradient'
    this.epoch = epoch
    this.step = step
    this.first = lo
    this.units = hi - lo
    this.largest = Math.min(largestNode(leafOf(welcome, work)), welcome.relay?.rounding?.leaves ?? Infinity)
    this.size = size
    const cost = size === undefined ? 1 : (size * size) / (full * full)
    this.cost = task === 'evaluate' ? FORWARD_COST : cost
    this.round = round
  }

  /** Whether a request that comes now is of the same job above. */
  takes({ work: { task, epoch, step, size } }: AskedNode): boolean {
    return task === this.task && epoch === this.epoch && step === this.step && size === this.size
  }

  #of(lo: number, hi: number): AskedNode {
    return this.nodes.findLast((node) => node.holds(lo, hi))!
  }

  samples(lo: number, hi: number): number {
    return this.#of(lo, hi).samples(lo, hi)
  }

  encoding(lo: number, hi: number): Encoding {
    return this.#of(lo, hi).encoding(lo, hi)
  }

  request(lo: number, hi: number, withSamples: boolean): WorkRequest {
    return this.#of(lo, hi).request(lo, hi, withSamples)
  }

  accept(answer: Answer, payload: Uint8Array): void {
    const node = this.#of(answer.lo, answer.hi)
    node.accept(answer, payload)
    this.#accepted(node)
  }
}
