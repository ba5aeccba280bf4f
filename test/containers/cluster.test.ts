import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { get } from 'node:https'
import { homedir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { StartedNetwork, StartedTestContainer } from 'testcontainers'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import type { Manifest } from '../manifests/check.ts'
import { copyManifests, noKubectl, render } from '../manifests/render.ts'
import { Convoy, scratch, type Line } from '../convoy.ts'
import { buildImage, canShape, findEngine, pause, shapeLink } from './engine.ts'

const { engine, reason } = await findEngine()
const { folder, remove } = scratch()
const images = process.env['CONVOY_DATA']
const shaped = canShape()

/** Prints a duration, for docs/figures.md: nothing here judges by it. */
const note = (what: string, from: number, to = Date.now()) =>
  console.log(`${what}: ${((to - from) / 1000).toFixed(2)} s`)

/** What both the cluster in containers and its undisturbed twin are given. */
const training = [
  ...['--limit-train', '2048', '--limit-test', '256', '--width', '0.25', '--epochs', '1000'],
  ...['--evaluate-every', '0', '--batch-size', '128', '--micro-batch', '8'],
  ...['--flip', '--shift', '4', '--learning-rate', '0.01', '--clip-norm', '1'],
]
const token = 'a-token-for-containers'

describe.skipIf(reason)(`in containers${reason ? ` (skipped: ${reason})` : ''}`, () => {
  let coordinatorImage: string
  let workerImage: string
  let network: StartedNetwork
  let containers: typeof import('testcontainers')
  const name = `convoy-coordinator-${process.pid}`
  const runs = path.join(folder, 'runs')
  // Converted data sets are this user's, as for every other test: a conversion takes a minute.
  const cache = process.env['CONVOY_CACHE'] ?? path.join(homedir(), '.cache', 'convoy')
  const tls = path.join(folder, 'tls')

  beforeAll(async () => {
    containers = await import('testcontainers')
    const building = Date.now()
    coordinatorImage = buildImage(engine!, 'coordinator')
    workerImage = buildImage(engine!, 'worker')
    note('building or finding the images', building)
    for (const place of [runs, cache, tls]) mkdirSync(place, { recursive: true })
    for (const place of [folder, runs]) chmodSync(place, 0o777)
    execFileSync(
      'openssl',
      [
        ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
        ...['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name},DNS:${name}-stopped`],
        ...['-keyout', `${tls}/tls.key`, '-out', `${tls}/tls.crt`],
      ],
      { stdio: 'pipe' },
    )
    chmodSync(`${tls}/tls.key`, 0o644)
    network = await new containers.Network().start()
  }, 900_000)

  afterAll(async () => {
    await engine?.close()
    remove()
  })

  /** What the coordinator has told of a run so far. */
  const told = (run: string): Line[] => {
    const file = path.join(runs, run, 'metrics.jsonl')
    if (!existsSync(file)) return []
    const whole = readFileSync(file, 'utf8')
    return whole
      .slice(0, whole.lastIndexOf('\n') + 1)
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Line)
  }
  const all = (run: string, event: string) => told(run).filter((line) => line.event === event)
  /** When something was told last. */
  const timeOf = (run: string, event: string) => Number(all(run, event).at(-1)?.['time'])
  const stepOf = (run: string) => Number(all(run, 'step').at(-1)?.['step'] ?? 0)
  const until = async (what: string, ready: () => boolean) => {
    // What takes seconds on an idle machine may take a minute on a busy one.
    for (const start = Date.now(); !ready(); await sleep(100))
      if (Date.now() - start > 180_000) throw new Error(`waited 3 minutes for ${what}`)
  }
  const moreSteps = async (run: string, count: number) => {
    const from = stepOf(run)
    await until(`${count} steps after ${from}`, () => stepOf(run) >= from + count)
  }
  const workersOf = (run: string) =>
    Number(told(run).findLast(({ workers }) => workers !== undefined)?.['workers'] ?? 0)

  const startCoordinator = (
    run: string,
    called: string,
    environment: Record<string, string>,
    args: readonly string[] = training,
  ) => {
    const mounts = [
      { source: runs, target: '/runs' },
      { source: cache, target: '/cache', mode: 'ro' as const },
      { source: tls, target: '/tls', mode: 'ro' as const },
      ...(images
        ? [{ source: path.resolve(images), target: '/data/images.tar.gz', mode: 'ro' as const }]
        : []),
    ]
    return new containers.GenericContainer(coordinatorImage)
      .withName(called)
      .withNetwork(network)
      .withBindMounts(mounts)
      .withTmpFs({ '/tmp': 'rw' })
      .withEnvironment({
        CONVOY_TOKEN: token,
        CONVOY_DATA: images ? '/data/images.tar.gz' : 'synthetic',
        CONVOY_NAME: run,
        CONVOY_CHECKPOINT_EVERY: '2',
        ...environment,
      })
      .withCommand([...args, '--json'])
      .withExposedPorts(7311)
      .withWaitStrategy(containers.Wait.forLogMessage(/"event":"listening"/))
      .withStartupTimeout(180_000)
      .start()
  }
  const secured = { CONVOY_TLS_CERT: '/tls/tls.crt', CONVOY_TLS_KEY: '/tls/tls.key' }
  const startWorker = (worker: string, coordinator = name) =>
    new containers.GenericContainer(workerImage)
      .withName(`${worker}-${process.pid}`)
      .withNetwork(network)
      .withBindMounts([{ source: tls, target: '/tls', mode: 'ro' }])
      .withTmpFs({ '/tmp': 'rw' })
      .withEnvironment({
        CONVOY_COORDINATOR: `wss://${coordinator}:7311`,
        CONVOY_TOKEN: token,
        CONVOY_TLS_CA: '/tls/tls.crt',
        CONVOY_WORKER_NAME: worker,
      })
      .withWaitStrategy(containers.Wait.forLogMessage(/looking for the coordinator/))
      .withStartupTimeout(180_000)
      .start()

  /** What Prometheus would see, over TLS. */
  const scrape = (port: number, servername = name) =>
    new Promise<string>((resolve, reject) => {
      const ca = readFileSync(`${tls}/tls.crt`)
      const request = get({ host: '127.0.0.1', port, path: '/metrics', ca, servername }, (answer) => {
        let text = ''
        answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
        answer.on('end', () => resolve(text))
      })
      request.on('error', reject)
    })
  /** Stops a container as `docker stop` does, with so many seconds until it would be killed, and gives its exit code. */
  const stop = (container: StartedTestContainer, seconds: number): number => {
    engine!.run('stop', '-t', String(seconds), container.getId())
    return Number(engine!.run('inspect', '-f', '{{.State.ExitCode}}', container.getId()).trim())
  }
  /** What the same training gives on this machine's processes, without a disturbance. */
  const undisturbed = (steps: number) =>
    new Convoy([
      ...['train', '--data', images ?? 'synthetic', ...training, '--steps', String(steps), '--workers', '2'],
      ...[
        '--engine',
        'onednn',
        '--runs',
        path.join(folder, 'bare'),
        '--port',
        '0',
        '--cache',
        cache,
        '--json',
      ],
    ]).done()

  it('a stopped worker hands back its work within 5 s, a stopped coordinator keeps a checkpoint within 10 s', async () => {
    const run = 'stopped'
    const called = `${name}-stopped`
    const asked = Date.now()
    const coordinator = await startCoordinator(run, called, secured, [
      ...[
        '--limit-train',
        '2048',
        '--limit-test',
        '256',
        '--batch-size',
        '64',
        '--micro-batch',
        '8',
        '--ledger',
      ],
      // At full width, and a request a leaf: a stop finds one at hand and others to hand back.
      ...['--wire', 'bf16', '--wire-leaves', '1'],
    ])
    note('start of a coordinator to its listening', asked)
    // One worker at a time: nobody else may repeat what one is late with, which would count as wasted.
    for (const worker of ['first', 'second']) {
      const [started, from] = [Date.now(), stepOf(run)]
      const container = await startWorker(worker, called)
      await until('it to join', () => workersOf(run) === 1)
      note('start of a worker to its joining', started, timeOf(run, 'workerJoined'))
      await until('its first step', () => stepOf(run) > from)
      note('the same to the end of its first step of 64 images at full width', started, timeOf(run, 'step'))
      await moreSteps(run, 2)
      // Anywhere within a step, not where the end of one was just told.
      await sleep(1_000 * Math.random())
      const signalled = Date.now()
      expect(stop(container, 5)).toBe(0)
      note('docker stop of a worker', signalled)
      await until('it to be gone', () => workersOf(run) === 0)
    }
    const steps = stepOf(run)
    const metrics = await scrape(coordinator.getMappedPort(7311), called)
    const total = (metric: string) =>
      [...metrics.matchAll(new RegExp(`^${metric}(?:{.*})? (\\d+)$`, 'gm'))].reduce(
        (sum, [, value]) => sum + Number(value),
        0,
      )
    expect(total('convoy_wasted_samples_total')).toBe(0)
    expect(total('convoy_samples_total')).toBe(64 * steps)
    // Beyond that it is only what the second gave to the step that it left unfinished.
    const begun = total('convoy_worker_samples_total') - 64 * steps
    expect(begun).toBeGreaterThanOrEqual(0)
    expect(begun).toBeLessThan(64)

    const signalled = Date.now()
    expect(stop(coordinator, 10)).toBe(0)
    note('docker stop of a coordinator', signalled)
    expect(existsSync(path.join(runs, run, 'checkpoints', `step-${steps}.convoy`))).toBe(true)
    const ledger = readFileSync(path.join(runs, run, 'ledger.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
    const used = ledger.flatMap((line) => (JSON.parse(line) as { samples: number[] }).samples)
    expect(ledger).toHaveLength(steps)
    expect(new Set(used).size).toBe(64 * steps)
  }, 600_000)

  it(`gives the same bits through every disturbance${shaped ? '' : ' (no slow link: that needs root, nsenter and tc)'}`, async () => {
    // Converts the data set once, for both.
    if (images) {
      const prepared = new Convoy(['data', 'prepare', images, '--cache', cache])
      expect(await prepared.ended).toBe(0)
    }
    const run = 'disturbed'
    const coordinator = await startCoordinator(run, name, secured)
    const [one, two] = await Promise.all([startWorker('one'), startWorker('two')])
    await until('two workers', () => workersOf(run) === 2)
    await moreSteps(run, 5)

    // 2 → 5, one of them behind 8 Mbit/s.
    const [three, four, five] = await Promise.all(
      ['three', 'four', 'five'].map((worker) => startWorker(worker)),
    )
    if (shaped) shapeLink(engine!, three.getId(), 8)
    await until('five workers', () => workersOf(run) === 5)
    await moreSteps(run, 5)
    const metrics = await scrape(coordinator.getMappedPort(7311))
    expect(Number(/^convoy_workers (\d+)/m.exec(metrics)?.[1])).toBe(5)
    expect(Number(/^convoy_step (\d+)/m.exec(metrics)?.[1])).toBeGreaterThanOrEqual(10)

    // One is cut off and one stands still, both for 20 s: as long as it takes to be given up.
    engine!.run('network', 'disconnect', network.getName(), four.getId())
    await pause(engine!, five.getId())
    const faultsEnd = Date.now() + 20_000
    await moreSteps(run, 5)

    // One is killed, the coordinator too; it goes on from its volume.
    engine!.run('kill', '-s', 'KILL', two.getId())
    await until('its end', () => all(run, 'workerLeft').some(({ worker }) => worker === 'two'))
    await moreSteps(run, 5)
    engine!.run('kill', '-s', 'KILL', coordinator.getId())
    const before = stepOf(run)
    engine!.run('start', coordinator.getId())
    await until('the coordinator to go on', () => all(run, 'start').length === 2)
    const resumed = all(run, 'start')[1]
    expect(resumed['resumedAt']).toBeGreaterThan(0)
    expect(resumed['resumedAt']).toBeLessThanOrEqual(before)
    await moreSteps(run, 5)

    await sleep(Math.max(0, faultsEnd - Date.now()))
    engine!.run('network', 'connect', network.getName(), four.getId())
    engine!.run('unpause', five.getId())
    const joined = (worker: string) =>
      all(run, 'workerJoined').filter((line) => line['worker'] === worker).length
    await until('both to come back', () => joined('four') >= 2 && joined('five') >= 2)
    await until('four workers', () => workersOf(run) === 4)
    await moreSteps(run, 5)

    // To 1: each hands back what it has and ends well before a pod would be killed.
    for (const worker of [three, four, five]) expect(stop(worker, 20)).toBe(0)
    await until('one worker', () => workersOf(run) === 1)
    await moreSteps(run, 5)

    // 1 → 3.
    const six = await startWorker('six')
    const seven = await startWorker('seven')
    await until('three workers', () => workersOf(run) === 3)
    await moreSteps(run, 10)

    // The coordinator too ends in time, with a checkpoint of just where it was.
    expect(stop(coordinator, 10)).toBe(0)
    const done = told(run).at(-1)!
    expect(done).toMatchObject({ event: 'done', finished: false, mixed: false })
    const steps = Number(done['step'])
    expect(existsSync(path.join(runs, run, 'checkpoints', `step-${steps}.convoy`))).toBe(true)
    // Without a coordinator to hand work back to, one may first have to give up looking up its name.
    for (const worker of [one, six, seven]) expect(stop(worker, 20)).toBe(0)

    expect((await undisturbed(steps))['parametersSha256']).toBe(done['parametersSha256'])
  }, 900_000)

  const unplayable = engine?.command !== 'podman' ? 'only podman plays manifests' : noKubectl
  it.skipIf(unplayable)(
    `three replicas of the worker's Deployment train${unplayable ? ` (skipped: ${unplayable})` : ''}`,
    async () => {
      const manifests = render(path.join(copyManifests(folder, token), 'overlays', 'cpu'))
      const isFor = (kind: string, start: string) => (manifest: Manifest) =>
        manifest.kind === kind && manifest.metadata.name.startsWith(start)
      const settings = manifests.find(isFor('ConfigMap', 'convoy-worker'))!
      const secret = manifests.find(isFor('Secret', 'convoy-token'))!
      const deployment = manifests.find(isFor('Deployment', 'convoy-worker')) as Manifest & {
        spec: { replicas: number; template: { spec: { containers: { image: string }[] } } }
      }
      // All that is changed for podman: the number of replicas, the image that was built here, and the Secret, which
      // podman takes from its own store. The Service's name is that of the coordinator's container.
      deployment.spec.replicas = 3
      deployment.spec.template.spec.containers[0].image = workerImage
      const secretFile = path.join(folder, 'secret.json')
      writeFileSync(secretFile, JSON.stringify(secret['data']))
      engine!.run('secret', 'create', secret.metadata.name, secretFile)
      const file = path.join(folder, 'worker.yaml')
      writeFileSync(file, `${stringify(settings)}---\n${stringify(deployment)}`)

      const run = 'played'
      const coordinator = await startCoordinator(run, 'convoy-coordinator', {})
      try {
        engine!.run('kube', 'play', '--network', network.getName(), file)
        await until('three workers', () => workersOf(run) === 3)
        await moreSteps(run, 10)
        const workers = all(run, 'workerJoined').map(({ worker }) => String(worker))
        expect(new Set(workers).size).toBe(3)
        // The manifest's readiness probe says so too, within the 5 s in which its file is written.
        const ready = (worker: string) => {
          try {
            engine!.run('exec', `${worker}-worker`, 'grep', '-q', 'joined', '/tmp/health')
            return true
          } catch {
            return false
          }
        }
        await until('three ready workers', () => workers.every(ready))
        engine!.run('kube', 'down', file)
        await until('their leaving', () => workersOf(run) === 0)
        expect(stop(coordinator, 10)).toBe(0)
        const done = told(run).at(-1)!
        const bare = await undisturbed(Number(done['step']))
        expect(done['parametersSha256']).toBe(bare['parametersSha256'])
      } finally {
        engine!.run('secret', 'rm', secret.metadata.name)
      }
    },
    600_000,
  )

  it('a worker that was promised a GPU ends and says why it will not compute', () => {
    const args = ['run', '--rm', '--network', 'none', '-e', 'CONVOY_ENGINE=auto', '-e', 'CONVOY_GPU=true']
    expect(() => engine!.run(...args, workerImage)).toThrow(/E_ENGINE_GPU/)
  })
})
