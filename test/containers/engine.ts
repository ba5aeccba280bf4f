import { execFileSync, spawn, spawnSync, type SpawnSyncReturns } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from '../convoy.ts'

/** What a container engine is reached by. */
export interface ContainerEngine {
  readonly command: 'docker' | 'podman'
  /** What `command` needs besides its arguments. */
  readonly environment: NodeJS.ProcessEnv
  /** Runs the engine's command line; throws with its output where it fails. */
  run(...args: string[]): string
  /** Removes every container that tests left behind, and ends what was started. */
  close(): Promise<void>
}

/** The engine, or the reason why there is none here. */
export type Found = { engine: ContainerEngine; reason?: undefined } | { engine?: undefined; reason: string }

const has = (program: string) => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0

/**
 * Finds Docker, or else starts a service of podman in a storage of its own, and points testcontainers at it.
 *
 * podman gets settings that work without systemd, without a user session and inside another container: runc, cgroupfs
 * and limits no higher than the caller's.
 */
export async function findEngine(): Promise<Found> {
  if (spawnSync('docker', ['info'], { stdio: 'ignore' }).status === 0) {
    const engine: ContainerEngine = {
      command: 'docker',
      environment: process.env,
      run: commandLine('docker', process.env),
      close: async () => {},
    }
    const base = baseImage()
    if (inStore(engine, base) || pulled(engine, base)) return { engine }
    return { reason: `no registry gives ${base}` }
  }
  if (!has('podman')) return { reason: 'neither a Docker engine nor podman' }
  if (process.getuid?.() !== 0) return { reason: 'no Docker engine, and podman needs root here' }
  for (const program of ['runc', 'busybox', 'setpriv'])
    if (!has(program)) return { reason: `podman needs ${program}` }

  // Images stay between runs of the tests, like Docker's; containers do not.
  const folder = path.join(tmpdir(), 'convoy-podman')
  mkdirSync(folder, { recursive: true })
  const hard = execFileSync('sh', ['-c', 'ulimit -Hn'], { encoding: 'utf8' }).trim()
  const files = {
    'containers.conf': `[containers]
${hard === 'unlimited' ? '' : `default_ulimits = ["nofile=${hard}:${hard}", "nproc=4096:4096"]`}
[network]
network_backend = "netavark"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
`,
    'storage.conf': `[storage]
driver = "overlay"
graphroot = "${folder}/images"
runroot = "${folder}/run"
`,
  }
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(folder, name), text)
  const environment = {
    ...process.env,
    CONTAINERS_CONF: path.join(folder, 'containers.conf'),
    CONTAINERS_STORAGE_CONF: path.join(folder, 'storage.conf'),
    // Where it unpacks what it builds and imports.
    TMPDIR: folder,
  }
  const run = commandLine('podman', environment)
  try {
    run('info')
  } catch (error) {
    return { reason: `podman does not work here: ${(error as Error).message.trim().split('\n').at(-1)}` }
  }
  // The storage is of one run of the tests at a time. A run that was killed left its number, its containers, but no
  // service: that ends with who started it.
  const owner = path.join(folder, 'owner')
  const owned = () => {
    const pid = existsSync(owner) ? Number(readFileSync(owner, 'utf8')) : 0
    return pid > 0 && pid !== process.pid && existsSync(`/proc/${pid}`)
  }
  for (let waited = 0; owned(); waited++) {
    if (waited > 600) return { reason: 'another run of these tests has held the containers for 10 minutes' }
    await sleep(1_000)
  }
  writeFileSync(owner, String(process.pid))
  const clean = () => {
    // The first may fail once where the last run was killed.
    for (const args of [
      ['pod', 'rm', '-af'],
      ['rm', '-af', '-t', '0'],
      ['rm', '-af', '-t', '0'],
      ['network', 'prune', '-f'],
      ['volume', 'prune', '-f'],
      ['secret', 'rm', '-a'],
    ])
      spawnSync('podman', args, { env: environment, stdio: 'ignore' })
  }
  clean()
  const socket = path.join(folder, 'podman.sock')
  rmSync(socket, { force: true })
  const service = spawn(
    'setpriv',
    ['--pdeathsig', 'TERM', 'podman', 'system', 'service', '--time=0', `unix://${socket}`],
    { env: environment, stdio: 'ignore' },
  )
  const over = new Promise<void>((resolve) => service.once('close', () => resolve()))
  const close = async () => {
    clean()
    service.kill()
    await over
    // podman keeps its storage mounted on itself.
    spawnSync('umount', [path.join(folder, 'images', 'overlay')], { stdio: 'ignore' })
    rmSync(owner, { force: true })
  }
  for (let waited = 0; !existsSync(socket); waited++) {
    if (waited > 600) {
      await close()
      return { reason: 'the service of podman does not start' }
    }
    await sleep(100)
  }
  Object.assign(process.env, {
    DOCKER_HOST: `unix://${socket}`,
    TESTCONTAINERS_RYUK_DISABLED: 'true',
    TESTCONTAINERS_HOST_OVERRIDE: '127.0.0.1',
  })
  const engine: ContainerEngine = { command: 'podman', environment, run, close }
  const base = baseImage()
  if (!inStore(engine, base) && !pulled(engine, base) && !has('mmdebstrap')) {
    await close()
    return { reason: `no registry gives ${base}, and there is no mmdebstrap to put one together` }
  }
  return { engine }
}

function commandLine(command: string, env: NodeJS.ProcessEnv) {
  return (...args: string[]): string => {
    const result: SpawnSyncReturns<string> = spawnSync(command, args, {
      env,
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    })
    if (result.status !== 0) {
      throw new Error(
        `${command} ${args.join(' ')} failed:\n${(result.stdout + result.stderr).slice(-4_000)}`,
      )
    }
    return result.stdout
  }
}

/** The base image that docker/Dockerfile names. */
function baseImage(): string {
  const text = readFileSync(path.join(root, 'docker', 'Dockerfile'), 'utf8')
  return /^ARG NODE_IMAGE=(\S+)$/m.exec(text)![1]
}

/**
 * Puts the images' base image into the engine's store, and gives its name: Debian's smallest system with Node.js, npm and a
 * user `node`. Where no registry gave it, it is put together from Debian's packages and this machine's Node.js.
 */
export function prepareBase(engine: ContainerEngine): string {
  const base = baseImage()
  if (!inStore(engine, base)) assembleBase(engine, base)
  return base
}

/** Builds an image from the project's own Dockerfile and gives its name. */
export function buildImage(engine: ContainerEngine, target: 'coordinator' | 'worker'): string {
  prepareBase(engine)
  const name = `localhost/convoy-${target}:test`
  // The host's network: what npm and apt reach here, they reach in there.
  engine.run(
    ...['build', '--network', 'host', '-f', path.join(root, 'docker', 'Dockerfile')],
    ...['--target', target, '-t', name, root],
  )
  return name
}

function inStore(engine: ContainerEngine, image: string): boolean {
  try {
    engine.run('image', 'inspect', image)
    return true
  } catch {
    return false
  }
}

function pulled(engine: ContainerEngine, image: string): boolean {
  try {
    engine.run('pull', image)
    return true
  } catch {
    return false
  }
}

/** A stand-in for node:VERSION-bookworm-slim: Debian's smallest system, Node.js and npm of this machine, a user `node`. */
function assembleBase(engine: ContainerEngine, name: string): void {
  const scratch = mkdtempSync(path.join(tmpdir(), 'convoy-base-'))
  try {
    const debian = path.join(scratch, 'debian.tar')
    const leftOut = ['man', 'doc', 'locale'].map((part) => `--dpkgopt=path-exclude=/usr/share/${part}/*`)
    execFileSync(
      'mmdebstrap',
      [
        '--quiet',
        '--variant=minbase',
        '--mode=root',
        ...leftOut,
        '--include=ca-certificates',
        'bookworm',
        debian,
      ],
      { stdio: 'pipe' },
    )
    engine.run('import', debian, 'localhost/convoy-debian:bookworm')
    rmSync(debian)
    const npm = path.dirname(
      path.dirname(realpathSync(execFileSync('sh', ['-c', 'command -v npm'], { encoding: 'utf8' }).trim())),
    )
    cpSync(process.execPath, path.join(scratch, 'node'))
    cpSync(npm, path.join(scratch, 'npm'), { recursive: true })
    // A proxy that this machine trusts must be trusted in there too.
    cpSync('/etc/ssl/certs/ca-certificates.crt', path.join(scratch, 'ca.crt'))
    writeFileSync(
      path.join(scratch, 'Dockerfile'),
      `FROM localhost/convoy-debian:bookworm
COPY node /usr/local/bin/node
COPY npm /usr/local/lib/node_modules/npm
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm && useradd --uid 1000 --create-home node
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
CMD ["node"]
`,
    )
    engine.run('build', '-t', name, scratch)
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** Whether this process may limit the links of containers (`nsenter` and `tc` as root on the engine's own machine). */
export function canShape(): boolean {
  return process.getuid?.() === 0 && ['nsenter', 'tc', 'ip'].every(has)
}

/** Freezes a container. runc gives up where its processes start others just then, or the machine is busy: it is asked again. */
export async function pause(engine: ContainerEngine, container: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      engine.run('pause', container)
      return
    } catch (error) {
      if (tries === 20) throw error
      await sleep(500)
    }
  }
}

/** Limits what a container sends and what it is sent, in Mbit/s each way: both ends of its virtual cable. */
export function shapeLink(engine: ContainerEngine, container: string, megabits: number): void {
  const pid = engine.run('inspect', '-f', '{{.State.Pid}}', container).trim()
  const inside = ['-t', pid, '-n']
  const link = execFileSync('nsenter', [...inside, 'ip', '-o', 'link', 'show', 'eth0'], { encoding: 'utf8' })
  const peer = /eth0@if(\d+)/.exec(link)![1]
  const outside = execFileSync('ip', ['-o', 'link'], { encoding: 'utf8' })
  const veth = new RegExp(`^${peer}: ([^@:]+)`, 'm').exec(outside)![1]
  const limit = ['root', 'tbf', 'rate', `${megabits}mbit`, 'burst', '16kb', 'latency', '200ms']
  execFileSync('nsenter', [...inside, 'tc', 'qdisc', 'add', 'dev', 'eth0', ...limit], { stdio: 'pipe' })
  execFileSync('tc', ['qdisc', 'add', 'dev', veth, ...limit], { stdio: 'pipe' })
}
