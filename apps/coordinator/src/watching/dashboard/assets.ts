import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const types: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
}

/** What the page may do: its own scripts, styles and connections, and nothing from or to anywhere else. */
const POLICY = [
  "default-src 'none'",
  // TensorFlow.js computes in WebAssembly.
  "script-src 'self' 'wasm-unsafe-eval'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

export const securityHeaders = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
}

const NOT_BUILT = `<!doctype html><html lang="en"><title>Convoy</title>
<p>The page is not built. Start Convoy with <code>./convoy</code>, which builds it.</p></html>`

interface Asset {
  readonly type: string
  /** By content encoding; '' is none. */
  readonly bodies: Map<string, Buffer>
}

/** The files of the page, in memory: some hundred KB that never touch the disk again. */
export class Assets {
  /** Tells one build of the page from another. */
  readonly build: string
  readonly #files = new Map<string, Asset>()

  /** @param folder Where the build put the page: each file, and it compressed beside it as `.br` and `.gz`. */
  constructor(folder: URL) {
    let names: string[] = []
    try {
      names = readdirSync(folder, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => path.posix.join(path.relative(fileURLToPath(folder), entry.parentPath), entry.name))
    } catch {
      // Run from the sources: there is no page.
    }
    for (const name of names.sort()) {
      const encoding = /\.(br|gz)$/.exec(name)?.[1] ?? ''
      const plain = encoding ? name.slice(0, -3) : name
      const asset: Asset = this.#files.get(plain) ?? {
        type: types[path.extname(plain)] ?? 'application/octet-stream',
        bodies: new Map(),
      }
      asset.bodies.set(encoding === 'gz' ? 'gzip' : encoding, readFileSync(new URL(name, folder)))
      this.#files.set(plain, asset)
    }
    if (!this.#files.has('index.html'))
      this.#files.set('index.html', { type: types['.html'], bodies: new Map([['', Buffer.from(NOT_BUILT)]]) })
    this.build = createHash('sha256')
      .update(this.#files.get('index.html')!.bodies.get('')!)
      .digest('hex')
      .slice(0, 16)
  }

  /** Answers a request for a file of the page; false where there is none at that path. */
  serve(route: string, request: IncomingMessage, response: ServerResponse): boolean {
    const name = route === '/' ? 'index.html' : route.slice(1)
    const asset = this.#files.get(name)
    if (!asset) return false
    const accepted = String(request.headers['accept-encoding'] ?? '')
    const encoding =
      ['br', 'gzip'].find((one) => asset.bodies.has(one) && new RegExp(`\\b${one}\\b`).test(accepted)) ?? ''
    const body = asset.bodies.get(encoding)!
    response.writeHead(200, {
      ...securityHeaders,
      'content-type': asset.type,
      'content-length': body.length,
      // Names under assets/ change with their content.
      'cache-control': name.startsWith('assets/') ? 'public, max-age=31536000, immutable' : 'no-cache',
      vary: 'accept-encoding',
      ...(encoding ? { 'content-encoding': encoding } : {}),
    })
    response.end(request.method === 'HEAD' ? undefined : body)
    return true
  }
}
