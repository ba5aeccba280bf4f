import { ConvoyError } from '@convoy/errors'
import { decodeFrame, encodeFrame, PROTOCOL_VERSION } from '@convoy/protocol'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { WebSocket, type ClientOptions } from 'ws'
import { Cluster } from '../cluster/index.ts'
import { SILENT, type RunEvent } from '../events.ts'
import { MAX_BEFORE_HELLO, MAX_PENDING, UNASKED } from './limits.ts'
import { frame, gradientJob } from '../fixtures.ts'
import type { Hall } from './hall.ts'
import { CoordinatorServer } from './server.ts'

const token = 'a-secret-token'
const numerics = {
  ...{ engine: 'none', version: '1', precision: 'float32', instructionSet: 'none', threads: 1 },
} as const

/** The header of a valid hello. */
const hello = (name: string, n = 1) => ({
  ...{ kind: 'hello', version: PROTOCOL_VERSION, name, instance: n.toString(16).padStart(32, '0') },
  ...{ engine: 'none', numerics, cores: 1 },
})

let cluster: Cluster
let server: CoordinatorServer
let url: string
let port: number
let events: RunEvent[]
const refused = new Map<string, number>()
const sockets: (Socket | WebSocket)[] = []

beforeEach(async () => {
  events = []
  refused.clear()
  const count = (code: string) => refused.set(code, (refused.get(code) ?? 0) + 1)
  cluster = new Cluster((event) => {
    events.push(event)
    if (event.event === 'refused') count(event.code)
  })
  const hall: Hall = {
    cluster,
    refused: count,
    largestPayload: 1 << 20,
    admit: () => ({
      run: 'test',
      model: {} as never,
      ...{
        preprocessing: {},
        augmentation: {},
        seed: 0,
        microBatch: 16,
        smaller: [],
        down: 'float32',
        fingerprint: '',
        samples: true,
      },
    }),
    page: (path) => (path === '/healthz' ? { status: 200, type: 'text/plain', body: 'ok\n' } : undefined),
  }
  server = new CoordinatorServer({ host: '127.0.0.1', port: 0, token }, hall)
  url = await server.listen()
  port = Number(new URL(url).port)
})
afterEach(async () => {
  for (const socket of sockets.splice(0)) {
    if (socket instanceof WebSocket) socket.terminate()
    else socket.destroy()
  }
  cluster.dispose()
  await server.close('over')
})

/** A plain connection and what it was told, until it ended. */
function plain(text: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(text))
    sockets.push(socket)
    let got = ''
    socket.on('data', (chunk) => (got += chunk.toString()))
    socket.on('error', () => {})
    socket.on('close', () => resolve(got))
  })
}

const upgrade = (...headers: string[]) =>
  [
    'GET / HTTP/1.1',
    'Host: x',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    ...['Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', ...headers, '', ''],
  ].join('\r\n')

async function open(options: ClientOptions = {}): Promise<WebSocket> {
  const socket = new WebSocket(url, { ...options, headers: { authorization: `Bearer ${token}` } })
  sockets.push(socket)
  socket.on('error', () => {})
  await new Promise((resolve) => socket.once('open', resolve))
  return socket
}

/** The header of the next message, or undefined where the connection ends before. */
const answer = (socket: WebSocket) =>
  new Promise<{ kind: string; code?: string } | undefined>((resolve) => {
    socket.once('message', (data) =>
      resolve(decodeFrame(data as Buffer).header as { kind: string; code?: string }),
    )
    socket.once('close', () => resolve(undefined))
  })
const closed = (socket: WebSocket) => new Promise((resolve) => socket.once('close', resolve))

async function join(name: string, options?: ClientOptions): Promise<WebSocket> {
  const socket = await open(options)
  socket.send(encodeFrame(hello(name)))
  expect(await answer(socket)).toMatchObject({ kind: 'welcome' })
  return socket
}

describe('a peer without the token', () => {
  it.each([
    ['none', upgrade(), '401', 'E_TOKEN'],
    ['a wrong one', upgrade('Authorization: Bearer a-secret-tokem'), '401', 'E_TOKEN'],
    ['a bad key', upgrade(`Authorization: Bearer ${token}`).replace('dGhl', ''), '400', 'E_HTTP'],
    ['garbage', '\x16\x03\x01\x02\x00\x01\r\n\r\n', '400', 'E_HTTP'],
    ['long headers', upgrade(`X: ${'x'.repeat(10_000)}`), '431', 'E_TOO_LARGE'],
  ])('is told so and let go of, though it does not close: %s', async (_, text, status, code) => {
    expect(await plain(text)).toMatch(new RegExp(`^HTTP/1.1 ${status} [^]*"code":"${code}"`))
    expect(Object.fromEntries(refused)).toEqual({ [code]: 1 })
  })

  it('cannot end the coordinator by breaking off in the middle of its answer', async () => {
    for (let i = 0; i < 20; i++) {
      const socket = connect(port, '127.0.0.1')
      await new Promise<void>((resolve) => socket.once('connect', resolve))
      socket.write(upgrade())
      if (i % 2) await new Promise((resolve) => socket.once('data', resolve))
      socket.resetAndDestroy()
    }
    while ((refused.get('E_TOKEN') ?? 0) < 10) await sleep(5)
    expect((await fetch(url.replace('ws', 'http') + '/healthz')).status).toBe(200)
  })

  it('cannot keep workers out by connecting and waiting', async () => {
    for (let i = 0; i < MAX_PENDING + 50; i++) {
      const socket = connect(port, '127.0.0.1')
      socket.on('error', () => {})
      sockets.push(socket)
      if (i % 50 === 0) await new Promise<void>((resolve) => socket.once('connect', resolve))
    }
    await join('a')
    expect(refused.get('E_BUSY')).toBeGreaterThanOrEqual(1)
    expect(cluster.size).toBe(1)
  })
})

describe('a peer that keeps silent', () => {
  it('goes after a while, whatever it leaves out, and a worker by its name', async () => {
    const over = [plain(''), plain('GET / HTTP/1.1\r\nHost: x\r\n'), open().then(closed)]
    // It is joined, and does not answer pings any more.
    const worker = await join('paused', { autoPong: false })
    const lost = closed(worker)
    await Promise.all(over)
    expect(refused.get('E_HANDSHAKE')).toBe(3)
    await lost
    expect(events.at(-1)).toMatchObject({ event: 'workerLeft', worker: 'paused', reason: SILENT })
  })
})

describe('a peer with the token', () => {
  it('may not send much before its hello', async () => {
    const socket = await open()
    socket.send(new Uint8Array(2 * MAX_BEFORE_HELLO))
    await closed(socket)
    expect(refused.get('E_TOO_LARGE')).toBe(1)
  })

  it('may not announce more than the largest gradient', async () => {
    const socket = await join('a')
    socket.send(new Uint8Array(2 << 20))
    await closed(socket)
    expect(refused.get('E_TOO_LARGE')).toBe(1)
    expect(cluster.size).toBe(0)
  })

  it('may not cut a message into many pieces', async () => {
    const socket = await join('a')
    for (let i = 0; i < 100; i++) socket.send(Uint8Array.of(i), { fin: false })
    await closed(socket)
    expect(refused.get('E_TOO_LARGE')).toBe(1)
  })

  it.each([
    ['messages', (socket: WebSocket) => socket.send(encodeFrame({ kind: 'ready' }))],
    ['nonsense', (socket: WebSocket) => socket.send(encodeFrame({ kind: 'dance' }))],
    ['pings', (socket: WebSocket) => socket.ping()],
    ['pongs', (socket: WebSocket) => socket.pong()],
  ])('may not send %s without end, and is told why it goes', async (_, say) => {
    const socket = await join('a')
    let last: { kind: string; code?: string } | undefined
    socket.on('message', (data) => {
      last = decodeFrame(data as Buffer).header as { kind: string; code?: string }
    })
    for (let i = 0; i < UNASKED.burst + 20; i++) say(socket)
    await closed(socket)
    expect(last).toMatchObject({ kind: 'goodbye', code: 'E_RATE' })
    expect(refused.get('E_RATE')).toBe(1)
    expect(cluster.size).toBe(0)
  })

  it('is told what was wrong, and that is counted by its code', async () => {
    const socket = await join('a')
    for (const [bytes, code] of [
      [encodeFrame({ kind: 'ready' }, new Uint8Array(9_000)), 'E_TOO_LARGE'],
      [encodeFrame({ kind: 'failed', id: 7, step: 1, lo: 0, hi: 1, why: 1 }), 'E_MESSAGE'],
      [encodeFrame({ kind: 'evaluation', id: 7, step: 1, lo: 0, hi: 1, seconds: 1 }), 'E_NOT_ASKED'],
    ] as const) {
      socket.send(bytes)
      expect(await answer(socket)).toMatchObject({ kind: 'refused', code })
      expect(refused.get(code)).toBe(1)
    }
  })

  it('is set aside after three such answers in a row, for twice as long each time, and gets no work', async () => {
    const [bad, good] = [await join('bad'), await join('good')]
    const wrong = encodeFrame({ kind: 'evaluation', id: 7, step: 1, lo: 0, hi: 1, seconds: 1 })
    for (let i = 0; i < 9; i++) {
      bad.send(wrong)
      await answer(bad)
    }
    expect(events.filter(({ event }) => event === 'setAside')).toEqual(
      [10, 20, 40].map((seconds) => ({ event: 'setAside', worker: 'bad', seconds, code: 'E_NOT_ASKED' })),
    )
    for (const socket of [bad, good]) {
      answerWork(socket)
      socket.send(encodeFrame({ kind: 'ready' }))
    }
    while ([...cluster.members].some(({ state }) => state !== 'ready')) await sleep(5)
    const by: string[] = []
    expect(
      await cluster.compute(
        gradientJob(1, (_, worker) => by.push(worker)),
        frame,
      ),
    ).toBe(true)
    expect(new Set(by)).toEqual(new Set(['good']))
  })

  it('makes nothing grow by names that it makes up', async () => {
    for (let i = 0; i < 3_000; i += 100) {
      const some = await Promise.all(Array.from({ length: 100 }, (_, k) => join(`w${i + k}`)))
      await Promise.all(some.map((socket) => (socket.close(), closed(socket))))
    }
    while (cluster.size > 0) await sleep(5)
    expect(cluster.tallies.size).toBeLessThan(1_200)
    expect(cluster.traffic.sent).toBeGreaterThan(3_000 * 50)
  })
})

/** Has a worker answer what it is asked, after so many milliseconds. */
const answerWork = (socket: WebSocket, wait = 0) =>
  socket.on('message', (data) => {
    const { header } = decodeFrame(data as Buffer)
    const { kind, id, step, lo, hi, count } = header as Record<string, number | string>
    if (kind !== 'work') return
    const result = { kind: 'gradient', id, step, lo, hi, count, loss: 1, correct: 0, seconds: 0 }
    setTimeout(() => socket.send(encodeFrame(result)), wait)
  })

describe('peers that answer NaN', () => {
  it('do not make a training diverge that a worker with good answers does not', async () => {
    const honest = await join('honest')
    const [one, two] = [await join('one'), await join('two')]
    let diverged = 0
    cluster.onNotFinite = () => diverged++
    let given: string[] = []
    const job = (step: number) =>
      gradientJob(step, (node, worker) => {
        if (worker !== 'honest') throw new ConvoyError('E_NOT_FINITE', 'NaN', '')
        given.push(node)
      })
    answerWork(honest, 50)
    answerWork(one)
    answerWork(two)
    // The first step proves the honest one; the others come then, and are much faster.
    honest.send(encodeFrame({ kind: 'ready' }))
    expect(await cluster.compute(job(1), frame)).toBe(true)
    for (const socket of [one, two]) socket.send(encodeFrame({ kind: 'ready' }))
    while ([...cluster.members].some(({ state }) => state !== 'ready')) await sleep(5)
    given = []
    expect(await cluster.compute(job(2), frame)).toBe(true)
    expect(refused.get('E_NOT_FINITE')).toBeGreaterThanOrEqual(2)
    expect(given).toHaveLength(3)
    expect(diverged).toBe(0)
  })
})
