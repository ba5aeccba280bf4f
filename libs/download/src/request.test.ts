import { createServer, get } from 'node:http'
import { connect, type AddressInfo, type Server } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { isOffline, proxyAgent, proxyFor, request, withoutCredentials } from './request.ts'

describe('#isOffline', () => {
  it.each([
    ['1', true],
    ['true', true],
    ['no', false],
    ['0', false],
    ['', false],
    [undefined, false],
  ])('says of CONVOY_OFFLINE=%s: %s', (value, offline) =>
    expect(isOffline(value === undefined ? {} : { CONVOY_OFFLINE: value })).toBe(offline),
  )
})

describe('#proxyFor', () => {
  const environment = { HTTPS_PROXY: 'http://me:secret@secure:3128', http_proxy: 'plain:8080' }
  it('takes the one of the scheme, in either case, for WebSockets as well', () => {
    expect(proxyFor('https://pypi.org/simple', environment)).toBe('http://me:secret@secure:3128')
    expect(proxyFor('wss://far.example:7311', environment)).toBe('http://me:secret@secure:3128')
    expect(proxyFor('ws://far.example:7311', environment)).toBe('http://plain:8080')
    expect(proxyFor('http://far.example', { ALL_PROXY: 'http://all' })).toBe('http://all')
    expect(proxyFor('http://far.example', {})).toBeUndefined()
  })

  it.each(['ws://127.0.0.1:7311', 'ws://localhost:7311', 'http://[::1]:80', 'http://a.localhost'])(
    'leaves this machine alone: %s',
    (address) => expect(proxyFor(address, environment)).toBeUndefined(),
  )

  it.each([
    ['*', 'https://a.example'],
    ['a.example', 'https://a.example'],
    ['.example', 'https://a.example'],
    ['*.example', 'https://a.example'],
    ['example', 'https://b.a.example'],
    ['other, a.example:7311', 'wss://a.example:7311'],
    ['10.0.0.0/8', 'ws://10.1.2.3:7311'],
    ['fd00::/8', 'ws://[fd00::1]:7311'],
    ['fd00::1', 'ws://[fd00::1]:7311'],
  ])('NO_PROXY=%s spares %s', (noProxy, address) =>
    expect(proxyFor(address, { ...environment, NO_PROXY: noProxy })).toBeUndefined(),
  )

  it.each([
    ['b.example', 'https://a.example'],
    ['ample', 'https://a.example'],
    ['a.example:80', 'https://a.example'],
    ['10.0.0.0/8', 'https://11.1.2.3'],
    ['10.0.0.0/99', 'https://10.1.2.3'],
    ['', 'https://a.example'],
  ])('NO_PROXY=%s does not spare %s', (noProxy, address) =>
    expect(proxyFor(address, { ...environment, NO_PROXY: noProxy })).toBeDefined(),
  )
})

describe('#withoutCredentials', () => {
  it('shows no password', () =>
    expect(withoutCredentials('http://me:secret@proxy:3128/a@b')).toBe('http://proxy:3128/a@b'))
})

describe('a proxy', () => {
  const asked: string[] = []
  let refuse = false
  const far = createServer((message, response) => response.end(`you asked for ${message.url}`))
  /** A name that only the proxy knows stands for the server above. */
  const proxy = createServer((message, response) => {
    asked.push(`${message.method} ${message.url} ${message.headers['proxy-authorization'] ?? ''}`.trim())
    if (refuse) return response.writeHead(403).end()
    get({ port: portOf(far), path: new URL(message.url!).pathname }, (answer) => answer.pipe(response))
  }).on('connect', (message, socket) => {
    asked.push(`CONNECT ${message.url} ${message.headers['proxy-authorization'] ?? ''}`.trim())
    if (refuse) return socket.end('HTTP/1.1 403 Forbidden\r\n\r\n')
    const out = connect(portOf(far), '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      socket.pipe(out).pipe(socket)
    })
  })
  const portOf = (server: Server) => (server.address() as AddressInfo).port
  const listen = (server: Server) =>
    new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()))
  beforeAll(() => Promise.all([listen(far), listen(proxy)]))
  afterAll(() => {
    far.close()
    proxy.close()
  })
  beforeEach(() => {
    asked.length = 0
    refuse = false
  })
  const environment = () => ({ HTTP_PROXY: `http://me:secret@127.0.0.1:${portOf(proxy)}` })
  const basic = `Basic ${Buffer.from('me:secret').toString('base64')}`

  it('is asked for what is fetched by HTTP', async () => {
    const answer = await request('http://far.example/page', {}, environment())
    expect(await answer.text()).toBe('you asked for /page')
    expect(asked).toEqual([`GET http://far.example/page ${basic}`])
  })

  it('is asked for a tunnel by what is fetched by HTTPS', async () => {
    refuse = true
    const { HTTP_PROXY: HTTPS_PROXY } = environment()
    await expect(request('https://far.example/page', {}, { HTTPS_PROXY })).rejects.toThrow()
    expect(asked).toEqual([`CONNECT far.example:443 ${basic}`])
  })

  it('is not asked where NO_PROXY spares the address', async () => {
    const spared = { ...environment(), NO_PROXY: 'far.example' }
    await expect(request('http://far.example/page', {}, spared)).rejects.toThrow()
    expect(asked).toEqual([])
  })

  it('opens a tunnel for a socket, or says why it does not', async () => {
    const fetchIt = async (): Promise<string> => {
      const agent = (await proxyAgent('ws://far.example:7311', environment()))!
      return new Promise((resolve, reject) => {
        get({ host: 'far.example', port: 7311, path: '/socket', agent }, (answer) => {
          answer.setEncoding('utf8').on('data', (text: string) => resolve(text))
        }).on('error', reject)
      })
    }
    expect(await fetchIt()).toBe('you asked for /socket')
    expect(asked).toEqual([`CONNECT far.example:7311 ${basic}`])
    refuse = true
    await expect(fetchIt()).rejects.toThrow(/^the proxy http:\/\/127\.0\.0\.1:\d+ answered 403$/)
  })
})
