import {
  decodeFrame,
  encodeFrame,
  PROTOCOL_VERSION,
  socketOptions,
  type CoordinatorMessage,
  type WorkerMessage,
} from '@convoy/protocol'
import { trainedLayout } from '@convoy/model'
import { encodedBytes } from '@convoy/reduction'
import { randomBytes } from 'node:crypto'
import { WebSocket } from 'ws'

/**
 * A worker of a speed that is known: for each leaf it sleeps for as long as it was told, and answers with zeros. Many of
 * them fit on one machine, since sleeping takes no processor.
 *
 * @param milliseconds For one leaf.
 * @param spread Share of these by which a request may take more or less, drawn by chance.
 * @param fingerprint Of the data set that it says to have.
 */
export function sleeper(
  url: string,
  name: string,
  milliseconds: number,
  { spread = 0, fingerprint }: { spread?: number; fingerprint?: string } = {},
): void {
  const socket = new WebSocket(url, socketOptions)
  const say = (message: WorkerMessage, payload?: Uint8Array) =>
    socket.send(payload ? encodeFrame(message, payload) : encodeFrame(message))
  const queue: Extract<CoordinatorMessage, { kind: 'work' }>[] = []
  let size = 0
  let timer: NodeJS.Timeout | undefined

  const next = () => {
    const work = queue[0]
    if (!work || timer) return
    const { id, step, lo, hi, count, encoding } = work
    const pause = milliseconds * (hi - lo) * (1 + spread * (2 * Math.random() - 1))
    timer = setTimeout(() => {
      timer = undefined
      if (queue[0] === work) {
        queue.shift()
        const answer = { kind: 'gradient', id, step, lo, hi, count, loss: 1, correct: 0 } as const
        say({ ...answer, seconds: pause / 1000 }, new Uint8Array(encodedBytes(encoding, size)))
      }
      next()
    }, pause)
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
    say({
      ...{ kind: 'hello', version: PROTOCOL_VERSION, name, instance, engine: 'sleeper', numerics, cores: 1 },
      ...(fingerprint === undefined ? {} : { fingerprint }),
    })
  })
  socket.on('message', (data: Buffer) => {
    const message = decodeFrame(data).header as CoordinatorMessage
    switch (message.kind) {
      case 'welcome':
        size = trainedLayout(message.model).size
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
  // The process ends with its last one.
  socket.on('close', () => clearTimeout(timer))
  socket.on('error', () => {})
}
