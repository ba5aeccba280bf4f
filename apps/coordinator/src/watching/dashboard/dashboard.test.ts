import { createServer, request, type IncomingHttpHeaders, type Server } from 'node:http'
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { decodeImage } from '@convoy/data'
import type { LiveMessage } from '@convoy/protocol'
import sharp from 'sharp'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { Cluster } from '../../cluster/index.ts'
import type { RunEvent } from '../../events.ts'
import { Dashboard } from './dashboard.ts'
import { History } from './history.ts'

const runs = mkdtempSync(path.join(tmpdir(), 'convoy-test-'))
afterAll(() => rmSync(runs, { recursive: true }))
const closing: (() => void)[] = []
afterEach(() => closing.splice(0).forEach((close) => close()))

const step = (step: number): RunEvent => ({
  ...{
    event: 'step',
    step,
    epoch: 0,
    loss: 2,
    cost1000: 2,
    cost5000: 2,
    accuracy: 0.1,
    learningRate: 0.01,
    gradientNorm: 1,
  },
  ...{ samples: 10, seconds: 0.1, computeSeconds: 0.08, updateSeconds: 0.01, workers: 1 },
})

async function open(token?: string): Promise<{ dashboard: Dashboard; port: number }> {
  const cluster = new Cluster(() => {})
  const refused: string[] = []
  const dashboard = new Dashboard({
    run: 'here',
    runs,
    history: new History(),
    cluster,
    token,
    refused: (code) => refused.push(code),
  })
  const server: Server = createServer((question, answer) => {
    if (!dashboard.serve(question, answer)) answer.writeHead(404).end()
  })
  server.on('upgrade', (question, socket, head) => dashboard.upgrade(question, socket, head))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  closing.push(() => {
    cluster.dispose()
    dashboard.close()
    server.close()
    server.closeAllConnections()
  })
  return { dashboard, port: (server.address() as AddressInfo).port }
}

/** A page: what it is told, one message after the other. */
function page(port: number, headers: Record<string, string> = {}) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/live`, { headers })
  const got: LiveMessage[] = []
  let wake = () => {}
  let over: string | undefined
  const end = (text: string) => {
    over ??= text
    wake()
  }
  socket.on('message', (data: Buffer) => {
    got.push(JSON.parse(data.toString()) as LiveMessage)
    wake()
  })
  socket.on('close', (code) => end(`closed with ${code}`))
  socket.on('error', (error) => end(error.message))
  return {
    say: async (message: object | string) => {
      if (socket.readyState === socket.CONNECTING)
        await new Promise((resolve) => socket.once('open', resolve))
      socket.send(typeof message === 'string' ? message : JSON.stringify(message))
    },
    /** The next message of a kind, or how the connection ended. */
    next: async <K extends LiveMessage['kind']>(kind: K): Promise<Extract<LiveMessage, { kind: K }>> => {
      for (;;) {
        const at = got.findIndex((message) => message.kind === kind)
        if (at >= 0) return got.splice(0, at + 1).at(-1) as Extract<LiveMessage, { kind: K }>
        if (over !== undefined) throw new Error(over)
        await new Promise<void>((resolve) => (wake = resolve))
      }
    },
  }
}

function get(port: number, where: string, headers: Record<string, string> = {}) {
  return new Promise<{ status: number; headers: IncomingHttpHeaders; body: string }>((resolve, reject) => {
    request({ port, host: '127.0.0.1', path: where, headers }, (answer) => {
      let body = ''
      answer.setEncoding('latin1').on('data', (chunk: string) => (body += chunk))
      answer.on('end', () => resolve({ status: answer.statusCode!, headers: answer.headers, body }))
    })
      .on('error', reject)
      .end()
  })
}

describe('Dashboard', () => {
  it('gives the history on request and then what happens, no step twice', async () => {
    const { dashboard, port } = await open()
    dashboard.hear(step(1))
    dashboard.hear(step(2))
    const { say, next } = page(port)
    await say({ kind: 'hello' })
    expect((await next('welcome')).run).toBe('here')
    dashboard.hear(step(3))
    await say({ kind: 'history', id: 7, run: 'here', from: 0, to: null, points: 100, whole: true })
    const { id, history } = await next('history')
    expect(id).toBe(7)
    expect(history.rows.step).toEqual([1, 2, 3])
    expect(history.rows.cost1000).toEqual([2, 2, 2])
    dashboard.hear(step(4))
    dashboard.hear({ event: 'checkpoint', step: 4, path: '' })
    const update = await next('update')
    expect(update.rows.step).toEqual([4])
    expect(update.status).toMatchObject({ step: 4, checkpoint: 4 })
    expect(update.notes.map(({ kind }) => kind)).toEqual(['checkpoint'])
  })

  it('reads other runs from their files, again once they have grown, torn lines passed over', async () => {
    const folder = path.join(runs, 'other')
    const file = path.join(folder, 'metrics.jsonl')
    mkdirSync(folder)
    writeFileSync(file, `${JSON.stringify(step(1))}\n{"event":"st\n${JSON.stringify(step(2))}\n`)
    const { port } = await open()
    const { say, next } = page(port)
    await say({ kind: 'hello' })
    const ask = async () => {
      await say({ kind: 'history', id: 1, run: 'other', from: 0, to: null, points: 100, whole: true })
      return (await next('history')).history
    }
    expect((await ask()).rows.step).toEqual([1, 2])
    appendFileSync(file, `${JSON.stringify(step(3))}\n`)
    expect(await ask()).toMatchObject({ current: false, rows: { step: [1, 2, 3] } })
    await say({ kind: 'runs', id: 2 })
    expect((await next('runs')).runs).toMatchObject([{ name: 'other', step: 3, finished: false }])
  })

  it('shows a long run from pieces of its file first, then all of it', async () => {
    const folder = path.join(runs, 'long')
    mkdirSync(folder)
    const lines = Array.from({ length: 60_000 }, (_, i) => JSON.stringify({ time: 1, ...step(i + 1) }))
    writeFileSync(path.join(folder, 'metrics.jsonl'), `${lines.join('\n')}\n`)
    const { port } = await open()
    const { say, next } = page(port)
    await say({ kind: 'hello' })
    const ask = async (whole: boolean) => {
      await say({ kind: 'history', id: 1, run: 'long', from: 0, to: null, points: 4_000, whole })
      const { history } = await next('history')
      return { whole: history.whole, ends: [history.rows.step[0], history.rows.step.at(-1)] }
    }
    expect(await ask(false)).toEqual({ whole: false, ends: [1, 60_000] })
    expect(await ask(true)).toEqual({ whole: true, ends: [1, 60_000] })
    expect(await ask(false)).toEqual({ whole: true, ends: [1, 60_000] })
  })

  it.each(['nothing', '..', '../here', 'a/b'])('says that there is no run %s', async (run) => {
    const { port } = await open()
    const { say, next } = page(port)
    await say({ kind: 'hello' })
    await say({ kind: 'history', id: 3, run, from: 0, to: null, points: 100, whole: true })
    expect((await next('missing')).id).toBe(3)
  })

  it.each([
    ['another page', { origin: 'http://evil.example' }],
    ['a name that is not of this machine', { host: 'evil.example', origin: 'http://evil.example' }],
  ])('refuses a socket from %s', async (_, headers) => {
    const { port } = await open()
    await expect(page(port, headers).next('welcome')).rejects.toThrow('403')
  })

  it.each([
    ['a question before hello', '{"kind":"runs","id":1}'],
    ['what is not JSON', '{'],
    ['an unknown kind', '{"kind":"shutdown"}'],
    ['too large a question', JSON.stringify({ kind: 'hello', token: 'x'.repeat(100_000) })],
  ])('closes on %s', async (_, text) => {
    const { port } = await open()
    const { say, next } = page(port)
    await say(text)
    await expect(next('welcome')).rejects.toThrow(/closed with/)
  })

  it('asks for the token where there is one, for pages and weights', async () => {
    const { port } = await open('a-secret-token')
    const wrong = page(port)
    await wrong.say({ kind: 'hello', token: 'guess' })
    expect((await wrong.next('token')).reason).toBe('The token is wrong.')
    await expect(wrong.next('welcome')).rejects.toThrow('closed with 1008')
    const right = page(port)
    await right.say({ kind: 'hello', token: 'a-secret-token' })
    await right.next('welcome')
    expect((await get(port, '/weights')).status).toBe(401)
    expect((await get(port, '/weights', { authorization: 'Bearer a-secret-token' })).status).toBe(404)
  })

  it('gives the newest checkpoint of a run, and nothing outside of the runs', async () => {
    const folder = path.join(runs, 'weighty', 'checkpoints')
    mkdirSync(folder, { recursive: true })
    for (const n of [9, 10]) writeFileSync(path.join(folder, `step-${n}.convoy`), `weights ${n}`)
    const { port } = await open()
    const { status, headers, body } = await get(port, '/weights?run=weighty')
    expect([status, body]).toEqual([200, 'weights 10'])
    expect(headers['content-disposition']).toBe('attachment; filename="weighty-step-10.convoy"')
    expect((await get(port, '/weights?run=..%2Fweighty')).status).toBe(404)
    expect((await get(port, '/weights?run=weighty', { host: 'evil.example' })).status).toBe(401)
  })

  it('decodes and resizes an image as libs/data does, and refuses what is none, too large, or without the token', async () => {
    const { port } = await open('a-secret-token')
    const send = (body: Buffer, where = '/image?side=8&name=a.png', token = 'a-secret-token') =>
      fetch(`http://127.0.0.1:${port}${where}`, {
        method: 'POST',
        body: new Uint8Array(body),
        headers: { authorization: `Bearer ${token}` },
      })
    const create = { width: 30, height: 20, channels: 3 as const, background: { r: 9, g: 90, b: 200 } }
    const image = await sharp({ create }).png().toBuffer()
    const answer = await send(image)
    expect(answer.status).toBe(200)
    expect(Buffer.from(await answer.arrayBuffer())).toEqual(await decodeImage(image, 8, 'a.png'))
    const broken = await send(Buffer.from('no image'))
    expect(broken.status).toBe(400)
    expect(await broken.json()).toMatchObject({
      code: 'E_DATA_IMAGE',
      message: expect.stringMatching(/^a.png is of no image format/) as string,
    })
    for (const side of ['0', '513', '1.5', 'x'])
      expect((await send(image, `/image?side=${side}`)).status).toBe(400)
    expect((await send(Buffer.alloc(20_000_001))).status).toBe(413)
    expect((await send(image, '/image?side=8', 'guess')).status).toBe(401)
  })

  it('serves the page under a policy that lets it load nothing from elsewhere', async () => {
    const { port } = await open()
    const { status, headers } = await get(port, '/')
    expect(status).toBe(200)
    expect(headers['content-security-policy']).toMatch(
      /^default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'/,
    )
    expect(headers['x-content-type-options']).toBe('nosniff')
    for (const elsewhere of ['/assets/../../package.json', '/nothing', '//', '/%2e%2e/x'])
      expect((await get(port, elsewhere)).status).toBe(404)
  })
})
