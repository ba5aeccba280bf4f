import { decodeFrame, encodeFrame } from '@convoy/protocol'
import type { AddressInfo } from 'node:net'
import { expect } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { Convoy, type Line } from './convoy.ts'

/** Changes what goes to a coordinator; undefined where it goes on as it is. */
type Change = (header: { kind: string }, payload: Uint8Array) => object | undefined

/**
 * A door before a coordinator.
 *
 * @param change Gives another header, and may write into the payload.
 */
export async function doorBefore(url: string, change: Change): Promise<{ url: string; close: () => void }> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await new Promise((resolve) => server.once('listening', resolve))
  server.on('connection', (near) => {
    const far = new WebSocket(url)
    const early: Uint8Array[] = []
    near.on('message', (data: Buffer) => {
      const { header, payload } = decodeFrame(data)
      const changed = change(header as { kind: string }, payload)
      const bytes: Uint8Array = changed ? encodeFrame(changed, payload) : data
      if (far.readyState === WebSocket.OPEN) far.send(bytes)
      else early.push(bytes)
    })
    far.on('open', () => early.forEach((bytes) => far.send(bytes)))
    far.on('message', (data: Buffer) => near.send(data))
    far.on('close', () => near.close())
    near.on('close', () => far.close())
    far.on('error', () => near.terminate())
    near.on('error', () => far.terminate())
  })
  const { port } = server.address() as AddressInfo
  return {
    url: `ws://127.0.0.1:${port}`,
    close: () => {
      for (const socket of server.clients) socket.terminate()
      server.close()
    },
  }
}

/**
 * A door before a coordinator that flips the lowest bit of one number in every tenth gradient that goes through: a worker
 * behind it looks like one with bad memory.
 */
export async function liarBefore(
  url: string,
): Promise<{ url: string; lies: () => number; close: () => void }> {
  let gradients = 0
  let lies = 0
  const door = await doorBefore(url, (header, payload) => {
    if (header.kind !== 'gradient' || ++gradients % 10 !== 0) return undefined
    lies++
    payload[4 * 1000] ^= 1
    return header
  })
  return { ...door, lies: () => lies }
}

/**
 * A run of three workers, one of whom lies, each of whose gradients is computed twice: the liar must be found and sent away.
 *
 * @param args Of the run, which must be long enough that all three are in before it is over.
 * @returns Its `done` line.
 */
export async function runWithLiar(args: readonly string[]): Promise<Line> {
  const run = new Convoy(['coordinator', ...args, '--verify', '1', '--name', 'verified'])
  const url = await run.address()
  const liar = await liarBefore(url)
  const worker = (name: string, at: string) =>
    new Convoy(['worker', '--coordinator', at, '--worker-name', name])
  const workers = [worker('b', liar.url), worker('a', url), worker('c', url)]
  const done = await run.done()
  expect(liar.lies()).toBeGreaterThan(0)
  expect(run.event('dishonest')).toMatchObject({ worker: 'b' })
  expect(await Promise.all(workers.map(({ ended }) => ended))).toEqual([1, 0, 0])
  liar.close()
  return done
}
