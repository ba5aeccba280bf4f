import { Agent } from 'node:http'
import { BlockList, isIP } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls, type ConnectionOptions } from 'node:tls'
import type { Dispatcher, RequestInit, Response } from 'undici'

/**
 * The one way out: every fetch of Convoy goes through `request`, which knows proxies (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY,
 * NO_PROXY, in either case), credentials in addresses, and CONVOY_OFFLINE.
 */

type Environment = NodeJS.ProcessEnv

/** Whether nothing may be fetched: `--offline` or CONVOY_OFFLINE. */
export function isOffline(environment: Environment): boolean {
  return !/^(0|false|no|off|)$/i.test(environment['CONVOY_OFFLINE']?.trim() ?? '')
}

const setting = (environment: Environment, name: string) =>
  environment[name.toLowerCase()] || environment[name] || undefined

/** The host of an address, without the brackets of IPv6. */
const hostOf = ({ hostname }: URL) => hostname.replace(/^\[|\]$/g, '')

/** Whether NO_PROXY spares an address: `*`, a name with all below it, an address or a range of addresses; each also with a port. */
function isSpared(url: URL, noProxy: string): boolean {
  const host = hostOf(url)
  const port = url.port || (url.protocol === 'https:' ? '443' : '80')
  return noProxy.split(/[\s,]+/).some((entry) => {
    if (entry === '*') return true
    const [, network, bits] = /^(.+)\/(\d+)$/.exec(entry) ?? []
    if (network !== undefined) {
      const family = isIP(network)
      if (family === 0 || family !== isIP(host)) return false
      const type = family === 4 ? 'ipv4' : 'ipv6'
      const range = new BlockList()
      try {
        range.addSubnet(network, Number(bits), type)
      } catch {
        return false
      }
      return range.check(host, type)
    }
    const [, named, only] = /^(.*?)(?::(\d+))?$/.exec(isIP(entry) === 6 ? `[${entry}]` : entry)!
    if (named === '' || (only !== undefined && only !== port)) return false
    const name = named.replace(/^\*?\.|^\[|\]$/g, '').toLowerCase()
    return host === name || host.endsWith(`.${name}`)
  })
}

/** The proxy that an address is reached through, if any. This machine itself is never looked for behind one. */
export function proxyFor(address: string, environment: Environment): string | undefined {
  const url = new URL(address.replace(/^ws/, 'http'))
  const host = hostOf(url)
  if (host === 'localhost' || host.endsWith('.localhost') || host === '::1' || /^127\./.test(host))
    return undefined
  const name = url.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY'
  const proxy = setting(environment, name) ?? setting(environment, 'ALL_PROXY')
  if (proxy === undefined || isSpared(url, setting(environment, 'NO_PROXY') ?? '')) return undefined
  return /^[a-z]+:\/\//i.test(proxy) ? proxy : `http://${proxy}`
}

/** An address to show: without what opens it. */
export function withoutCredentials(address: string): string {
  return address.replace(/^(\w+:\/\/)[^/@]*@/, '$1')
}

/** A header's value of the user and password of a URL. */
function basic(username: string, password: string): string {
  const secret = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  return `Basic ${Buffer.from(secret).toString('base64')}`
}

/** What takes a WebSocket through the proxy of its address, by CONNECT; undefined where there is none. */
export async function proxyAgent(address: string, environment: Environment): Promise<Agent | undefined> {
  const proxy = proxyFor(address, environment)
  if (proxy === undefined) return undefined
  // Loaded here only: most workers have no proxy.
  const { Client } = await import('undici')
  const { origin, username, password } = new URL(proxy)
  const headers = username ? { 'proxy-authorization': basic(username, password) } : {}
  const secure = /^wss:/i.test(address)

  class Tunnel extends Agent {
    override createConnection(
      options: ConnectionOptions,
      done: (error: Error | null, socket: Duplex) => void,
    ): undefined {
      const { host, port } = options
      const name = isIP(host!) === 6 ? `[${host}]` : host
      new Client(origin).connect({ path: `${name}:${port}`, headers }).then(
        ({ statusCode, socket }) => {
          if (statusCode === 200) return done(null, secure ? connectTls({ ...options, socket }) : socket)
          done(new Error(`the proxy ${withoutCredentials(proxy!)} answered ${statusCode}`), socket.destroy())
        },
        (error: Error) => done(error, undefined as never),
      )
    }
  }
  return new Tunnel()
}

let dispatcher: ((environment: Environment) => Dispatcher) | undefined

/** Sends each request through the proxy of its address, those that follow a redirection included. */
async function dispatcherFor(environment: Environment): Promise<Dispatcher> {
  if (!dispatcher) {
    const { Agent, Dispatcher, ProxyAgent } = await import('undici')
    const direct = new Agent()
    const proxies = new Map<string, Dispatcher>()
    class ByAddress extends Dispatcher {
      readonly #environment: Environment
      constructor(environment: Environment) {
        super()
        this.#environment = environment
      }
      override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
        const proxy = proxyFor(String(options.origin), this.#environment)
        if (proxy === undefined) return direct.dispatch(options, handler)
        let agent = proxies.get(proxy)
        // Plain HTTP is asked of the proxy itself: most open tunnels for HTTPS only.
        if (!agent) proxies.set(proxy, (agent = new ProxyAgent({ uri: proxy, proxyTunnel: false })))
        return agent.dispatch(options, handler)
      }
    }
    dispatcher = (environment) => new ByAddress(environment)
  }
  return dispatcher(environment)
}

/** Loads what fetches, which on a busy machine takes a while: before the time-out of the first answer begins. */
export async function loadFetch(): Promise<void> {
  await import('undici')
}

/**
 * `fetch`, with the proxies of the environment and with credentials in the address. Throws an Error where nothing may be
 * fetched (CONVOY_OFFLINE), and whatever `fetch` throws.
 */
export async function request(
  address: string,
  options: Omit<RequestInit, 'dispatcher' | 'headers'> & { headers?: Record<string, string> },
  environment: Environment,
): Promise<Response> {
  if (isOffline(environment)) throw new Error('nothing is fetched while offline (--offline, CONVOY_OFFLINE)')
  const url = new URL(address)
  const { username, password } = url
  const headers = { ...options.headers }
  if (username || password) {
    headers['authorization'] = basic(username, password)
    url.username = url.password = ''
  }
  // Loaded here only: most commands fetch nothing.
  const { fetch } = await import('undici')
  return fetch(url, { ...options, headers, dispatcher: await dispatcherFor(environment) })
}
