import {
  decodeFrame,
  encodeFrame,
  PROTOCOL_VERSION,
  socketOptions,
  type CoordinatorMessage,
  type MessageOf,
  type WorkerMessage,
} from '@convoy/protocol'
import { cover } from '@convoy/reduction'
import { trainedLayout } from '@convoy/model'
import { randomBytes } from 'node:crypto'
import { WebSocket } from 'ws'
import {
  claim,
  giveUp,
  leavesToGive,
  openClaims,
  unclaimed,
  type Claims,
} from '../../apps/worker/src/claims.ts'

/**
 * A worker of a speed that is known: for each leaf it sleeps for as long as it was told, and answers with zeros. Many of
 * them fit on one machine, since sleeping takes no processor.
 *
 * @param milliseconds For one leaf.
 */
export function sleeper(url: string, name: string, milliseconds: number): void {
  const socket = new WebSocket(url, socketOptions)
  const say = (message: WorkerMessage, payload?: Float32Array) =>
    socket.send(payload ? encodeFrame(message, payload) : encodeFrame(message))
  const queue: { work: MessageOf<CoordinatorMessage, 'work'>; claims: Claims }[] = []
  let zeros = new Float32Array()
  let timer: NodeJS.Timeout | undefined

  const next = () => {
    const [request] = queue
    if (!request || timer) return
    const { work, claims } = request
    if (claim(claims)) {
      timer = setTimeout(() => {
        timer = undefined
        next()
      }, milliseconds)
      return
    }
    queue.shift()
    answer(work, work.lo + giveUp(claims, () => 0))
    next()
  }

  const answer = ({ id, step, lo, hi, count }: MessageOf<CoordinatorMessage, 'work'>, end: number) => {
    // All leaves are equal here; a node of a power of two is cut as one of the batch is.
    for (const [from, to] of cover(lo, end, hi)) {
      const share = (to - from) / (hi - lo)
      const seconds = (milliseconds * (to - from)) / 1000
      say(
        { kind: 'gradient', id, step, lo: from, hi: to, count: count * share, loss: 0, correct: 0, seconds },
        zeros,
      )
    }
  }

  socket.on('open', () => {
    const numerics = {
      engine: 'sleeper',
      version: '1',
      precision: 'float32',
      instructionSet: 'none',
      threads: 1,
    } as const
    const instance = randomBytes(16).toString('hex')
    say({ kind: 'hello', version: PROTOCOL_VERSION, name, instance, engine: 'sleeper', numerics, cores: 1 })
  })
  socket.on('message', (data: Buffer) => {
    const message = decodeFrame(data).header as CoordinatorMessage
    switch (message.kind) {
      case 'welcome':
        zeros = new Float32Array(trainedLayout(message.model).size)
        say({ kind: 'ready' })
        break
      case 'work':
        queue.push({ work: message, claims: openClaims(message.hi - message.lo) })
        next()
        break
      case 'steal': {
        const at = queue.findIndex(({ work }) => work.id === message.id)
        const { id, step, lo } = message
        const ahead = queue.slice(0, Math.max(0, at)).reduce((sum, { claims }) => sum + unclaimed(claims), 0)
        const hi =
          at < 0 ? message.hi : lo + giveUp(queue[at].claims, (left) => leavesToGive(left, ahead, message))
        if (hi === lo) queue.splice(at, 1)
        say({ kind: 'yielded', id, step, lo, hi })
        break
      }
      case 'cancel': {
        const at = queue.findIndex(({ work }) => work.id === message.id)
        if (at < 0) break
        const [{ work }] = queue.splice(at, 1)
        const { id, step, lo, hi } = work
        if (at === 0) {
          clearTimeout(timer)
          timer = undefined
        }
        say({ kind: 'failed', id, step, lo, hi, why: 'cancelled' })
        next()
        break
      }
      case 'goodbye':
        socket.close()
    }
  })
  socket.on('close', () => process.exit(0))
  socket.on('error', () => process.exit(0))
}
