import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { root } from '../convoy.ts'

/** A program that is built here from a Go module of ours, of which go.mod names the versions. */
class Program {
  readonly name: string
  /** The version that it is of. */
  readonly version: string
  readonly #source: string
  readonly #arguments: readonly string[]

  /**
   * @param module Whose version it has.
   * @param target What is built: the module itself, or the tool that it names.
   */
  constructor(name: string, module: string, target: '.' | 'tool') {
    this.name = name
    this.#source = path.join(root, 'test', 'kubernetes', 'programs', name)
    const text = readFileSync(path.join(this.#source, 'go.mod'), 'utf8')
    this.version = new RegExp(`^\\s*${module} (v\\S+)`, 'm').exec(text)![1]
    this.#arguments = [`-ldflags=-s -w -X k8s.io/component-base/version.gitVersion=${this.version}`, target]
  }

  /** Where the binary of this version is, or will be: in this user's cache. */
  get path(): string {
    const hash = createHash('sha256')
    for (const name of readdirSync(this.#source).sort())
      hash.update(readFileSync(path.join(this.#source, name)))
    const cache = process.env['XDG_CACHE_HOME'] ?? path.join(homedir(), '.cache')
    return path.join(cache, 'convoy', this.name, hash.digest('hex').slice(0, 16), this.name)
  }

  get isBuilt(): boolean {
    return existsSync(this.path)
  }

  /**
   * Builds it where it is not built yet, and gives the binary's path. Says every 15 s how far it is.
   *
   * Go keeps what it compiled, so a build that was broken off goes on where it was.
   */
  async build(): Promise<string> {
    const binary = this.path
    if (this.isBuilt) return binary
    mkdirSync(path.dirname(binary), { recursive: true })
    // Without a C compiler, and so that an image needs nothing but the program.
    const options = { cwd: this.#source, env: { ...process.env, CGO_ENABLED: '0' } }
    console.log(`building ${this.name} ${this.version}, once …`)
    const stale = ['list', '-deps', '-f', '{{if .Stale}}{{.ImportPath}}{{end}}', ...this.#arguments]
    const total = execFileSync('go', stale, { ...options, encoding: 'utf8', maxBuffer: 1 << 26 })
      .split('\n')
      .filter(Boolean).length
    const started = Date.now()
    const part = `${binary}.${process.pid}`
    const child = spawn('go', ['build', '-v', '-o', part, ...this.#arguments], {
      ...options,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    let done = 0
    let last = ''
    createInterface({ input: child.stderr }).on('line', (line) => {
      done++
      last = line
    })
    const progress = setInterval(() => {
      const seconds = (Date.now() - started) / 1_000
      const left = done > 0 ? `, about ${Math.ceil((seconds * (total - done)) / done / 60)} min left` : ''
      const far = done < total ? `${done} of ${total} packages${left}` : 'linking …'
      console.log(`building ${this.name}: ${far}`)
    }, 15_000)
    const code = await new Promise((resolve) => child.once('close', resolve))
    clearInterval(progress)
    if (code !== 0) throw new Error(`go build failed in ${this.#source}: ${last}`)
    renameSync(part, binary)
    // A version that is not used any more is 90 to 180 MB.
    const versions = path.dirname(path.dirname(binary))
    for (const version of readdirSync(versions))
      if (version !== path.basename(path.dirname(binary)))
        rmSync(path.join(versions, version), { recursive: true, force: true })
    console.log(`built ${this.name} in ${((Date.now() - started) / 1_000).toFixed(0)} s: ${binary}`)
    return binary
  }
}

/** All programs of a cluster in one; see its main.go. */
export const kubernetes = new Program('kubernetes', 'k8s.io/kubernetes', '.')
/** Kueue's controller, whose module wants other versions of Kubernetes's libraries. */
export const kueue = new Program('kueue', 'sigs.k8s.io/kueue', 'tool')

/** What else a cluster needs of the machine, by its Debian package. */
const needed = {
  etcd: 'etcd-server',
  containerd: 'containerd',
  ctr: 'containerd',
  runc: 'runc',
  iptables: 'iptables',
  ip: 'iproute2',
  catatonit: 'catatonit',
  openssl: 'openssl',
}

/** Why there can be no cluster here; undefined where there can. */
export function noCluster(): string | undefined {
  const { CONVOY_KUBERNETES_BY: by } = process.env
  if (by && Date.now() / 1000 > Number(by)) return 'it is too late to begin, as CONVOY_KUBERNETES_BY says'
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'a node needs Linux and root'
  const has = (program: string) => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0
  const missing = Object.entries(needed).filter(([program]) => !has(program))
  if (missing.length > 0) return `apt-get install ${[...new Set(missing.map(([, name]) => name))].join(' ')}`
  if (!existsSync('/usr/lib/cni/ptp')) return 'apt-get install containernetworking-plugins'
  if (kubernetes.isBuilt && kueue.isBuilt) return undefined
  const go = spawnSync('go', ['version'], { cwd: root, encoding: 'utf8' })
  if (go.status !== 0) return 'Kubernetes is built with Go 1.26 or newer, which is not installed'
  if (process.env['CONVOY_KUBERNETES'] !== '1')
    return 'Kubernetes is not built yet: npm run test:kubernetes, or CONVOY_KUBERNETES=1, builds it once, in 6 to 15 minutes'
  return undefined
}
