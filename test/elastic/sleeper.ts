import {
  decodeFrame,
  encodeFrame,
  PROTOCOL_VERSION,
  socketOptions,
  type CoordinatorMessage,
  type WorkerMessage,
} from '@convoy/protocol'
import { trainedLayout } from '@convoy/model'
import { randomBytes } from 'node:crypto'
import { WebSocket } from 'ws'

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
  const queue: Extract<CoordinatorMessage, { kind: 'work' }>[] = []
  let zeros = new Float32Array()
  let timer: NodeJS.Timeout | undefined

  const next = () => {
    const work = queue[0]
    if (!work || timer) return
    timer = setTimeout(
      () => {
        timer = undefined
        if (queue[0] === work) {
          queue.shift()
          const { id, step, lo, hi, count } = work
          const seconds = (milliseconds * (hi - lo)) / 1000
          say({ kind: 'gradient', id, step, lo, hi, count, loss: 0, correct: 0, seconds }, zeros)
        }
        next()
      },
      milliseconds * (work.hi - work.lo),
    )
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
        queue.push(message)
        next()
        break
      case 'cancel': {
        const at = queue.findIndex(({ id }) => id === message.id)
        if (at < 0) break
        const [{ id, step, lo, hi }] = queue.splice(at, 1)
        clearTimeout(timer)
        timer = undefined
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
