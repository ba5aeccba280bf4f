import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { root } from '../convoy.ts'

const source = path.join(root, 'test', 'kubernetes', 'programs')

/** The version of Kubernetes that go.mod names. */
export const kubernetesVersion = /k8s\.io\/kubernetes (v\S+)/.exec(
  readFileSync(path.join(source, 'go.mod'), 'utf8'),
)![1]

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

/** Where the binary of this version's programs is, or will be: in this user's cache. */
export function binaryPath(): string {
  const hash = createHash('sha256')
  for (const name of ['go.mod', 'go.sum', 'main.go']) hash.update(readFileSync(path.join(source, name)))
  const cache = process.env['XDG_CACHE_HOME'] ?? path.join(homedir(), '.cache')
  return path.join(cache, 'convoy', 'kubernetes', hash.digest('hex').slice(0, 16), 'kubernetes')
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
  if (existsSync(binaryPath())) return undefined
  const go = spawnSync('go', ['version'], { cwd: source, encoding: 'utf8' })
  if (go.status !== 0) return 'Kubernetes is built with Go 1.26 or newer, which is not installed'
  if (process.env['CONVOY_KUBERNETES'] !== '1')
    return 'Kubernetes is not built yet: npm run test:kubernetes, or CONVOY_KUBERNETES=1, builds it once, in 4 to 10 minutes'
  return undefined
}

/**
 * Builds the programs where they are not built yet, and gives the binary's path. Says every 15 s how far it is.
 *
 * Go keeps what it compiled, so a build that was broken off goes on where it was.
 */
export async function buildPrograms(): Promise<string> {
  const binary = binaryPath()
  if (existsSync(binary)) return binary
  mkdirSync(path.dirname(binary), { recursive: true })
  const flags = [`-ldflags=-s -w -X k8s.io/component-base/version.gitVersion=${kubernetesVersion}`]
  console.log(`building Kubernetes ${kubernetesVersion}, once …`)
  const stale = ['list', ...flags, '-deps', '-f', '{{if .Stale}}{{.ImportPath}}{{end}}', '.']
  const total = execFileSync('go', stale, { cwd: source, encoding: 'utf8', maxBuffer: 1 << 26 })
    .split('\n')
    .filter(Boolean).length
  const started = Date.now()
  const part = `${binary}.${process.pid}`
  const child = spawn('go', ['build', '-v', ...flags, '-o', part, '.'], {
    cwd: source,
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
    console.log(
      done < total ? `building Kubernetes: ${done} of ${total} packages${left}` : 'linking Kubernetes …',
    )
  }, 15_000)
  const code = await new Promise((resolve) => child.once('close', resolve))
  clearInterval(progress)
  if (code !== 0) throw new Error(`go build failed in ${source}: ${last}`)
  renameSync(part, binary)
  // A version that is not used any more is 170 MB.
  const versions = path.dirname(path.dirname(binary))
  for (const version of readdirSync(versions))
    if (version !== path.basename(path.dirname(binary)))
      rmSync(path.join(versions, version), { recursive: true, force: true })
  console.log(`built Kubernetes in ${((Date.now() - started) / 1_000).toFixed(0)} s: ${binary}`)
  return binary
}
