import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildImage, findEngine } from '../containers/engine.ts'
import { Convoy, root, scratch, type Line } from '../convoy.ts'
import { serveExternalMetric } from './adapter.ts'
import { buildImageOf, checkout, edit, settings, shimDocker } from './checkout.ts'
import { Cluster } from './cluster.ts'
import { definitions } from './crds.ts'
import { faultsOf } from './faults.ts'
import { Followed } from './followed.ts'
import { commandsOf, Reader } from './guide.ts'
import { installKueue } from './kueue.ts'
import { kubernetes, kueue, noCluster } from './programs.ts'

const unable = noCluster()
// Images are built with what the tests in containers use.
const found = unable ? undefined : await findEngine()
const reason = unable ?? found?.reason
const engine = found?.engine
const { folder, remove } = scratch()
const guideText = readFileSync(path.join(root, 'docs/guides/kubernetes.md'), 'utf8')

describe.skipIf(reason)(`Kubernetes ${kubernetes.version}${reason ? ` (skipped: ${reason})` : ''}`, () => {
  const repository = path.join(folder, 'repository')
  let cluster: Cluster
  let reader: Reader

  beforeAll(async () => {
    const binary = await kubernetes.build()
    await kueue.build()
    const started = Date.now()
    for (const target of ['coordinator', 'worker'] as const) buildImage(engine!, target)
    const pause = path.join(folder, 'pause.tar')
    // Its one program waits: catatonit is there for this.
    const catatonit = execFileSync('sh', ['-c', 'command -v catatonit'], { encoding: 'utf8' }).trim()
    buildImageOf(engine!, 'localhost/convoy-pause:1', [catatonit, '-P'], pause)
    console.log(`images: ${((Date.now() - started) / 1_000).toFixed(0)} s`)
    const starting = Date.now()
    cluster = await Cluster.start(path.join(folder, 'cluster'), binary, pause)
    console.log(`cluster of two nodes ready: ${((Date.now() - starting) / 1_000).toFixed(0)} s`)
    shimDocker(engine!, cluster)
    mkdirSync(repository)
    checkout(repository)
    reader = new Reader(repository, path.join(folder, 'exported.sh'), cluster.environment)
  }, 3_600_000)

  afterAll(async () => {
    await cluster?.close()
    await engine?.close()
    remove()
  })

  /** Workers' pods that there are, ending ones too. */
  const pods = (selector = 'app.kubernetes.io/name=convoy-worker') =>
    (
      JSON.parse(cluster.kubectl('-n', 'convoy', 'get', 'pods', '-l', selector, '-o', 'json')) as {
        items: Pod[]
      }
    ).items
  const run = (name = 'cifar10') => new Followed(path.join(cluster.volume, 'runs', name))
  const workers = (count: number) =>
    cluster.until(`${count} workers`, () => run().workers === count && pods().length === count)
  const moreSteps = async (count: number) => {
    const from = run().step
    await cluster.until(`${count} steps after ${from}`, () => run().step >= from + count)
  }

  const guide = commandsOf('kubernetes.md')
  /** Runs the next command of a section, which is one that the test expects there. */
  const next = (title: string, expected: RegExp, enough?: Parameters<Reader['run']>[1]) => {
    const command = guide.get(title)?.shift()
    expect(command, `the next command of "${title}"`).toMatch(expected)
    return reader.run(command!, enough)
  }
  /** What `kubectl get pods` calls what it shows, now. */
  const statuses = () =>
    cluster
      .kubectl('-n', 'convoy', 'get', 'pods', '--no-headers', '-l', 'app.kubernetes.io/name=convoy-worker')
      .split('\n')
      .map((line) => line.split(/ +/)[2])
  /** Sets a variable of the coordinator, as the guide says. */
  const set = (name: string, value: string) =>
    edit(path.join(repository, 'k8s/base/kustomization.yaml'), (text) =>
      text
        .replace(new RegExp(`^ +- ${name}=.*\n`, 'm'), '')
        .replace('      - CONVOY_STAY', `      - ${name}=${value}\n      - CONVOY_STAY`),
    )
  /** Steps that take so many seconds at the speed of the guide's run: a fixed number is over too soon on a fast machine. */
  const stepsIn = (seconds: number) => {
    const done = run().all('done').at(-1)!
    return Math.ceil((seconds * Number(done['step'])) / Number(done['seconds']))
  }
  /** Begins another run: its name, and the volume of the last one free again. */
  const begin = (name: string, steps: number) => {
    set('CONVOY_NAME', name)
    set('CONVOY_STEPS', String(steps))
    cluster.kubectl('patch', 'pv', 'volume', '--type=merge', '-p', '{"spec":{"claimRef":null}}')
  }

  it('has two nodes, and holds pods to the restricted Pod Security Standard', async () => {
    console.log(cluster.kubectl('get', 'nodes', '-o', 'wide'))
    cluster.apply({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: 'strict', labels: { 'pod-security.kubernetes.io/enforce': 'restricted' } },
    })
    await cluster.until(
      'its service account',
      () => cluster.kubectl('-n', 'strict', 'get', 'sa', 'default') !== '',
    )
    const args = ['-n', 'strict', 'run', 'rooted', '--image=localhost/convoy-pause:1']
    expect(() => cluster.kubectl(...args)).toThrow(/violates PodSecurity "restricted/)
  })

  /** Brings about what the guide's table names, row by row, and waits until pods have the statuses that it promises. */
  const troubles = async () => {
    const faults = faultsOf(
      cluster,
      () => pods().find(({ spec }) => spec.nodeName === 'node2')!.metadata.name,
    )
    const rows = [...guideText.matchAll(/^\| (.+?) +\| (.+?) +\| (.+?) +\| (.+?) +\|$/gm)].slice(2)
    expect(rows.map(([, what]) => what)).toEqual(Object.keys(faults))
    for (const [, what, shown] of rows) {
      const { cause, mend } = faults[what]
      await cluster.until('workers on both nodes', () => pods().some(({ spec }) => spec.nodeName === 'node2'))
      const before = run().all('workerLeft').length
      const missing = new Set([...shown.matchAll(/`(\w+)`/g)].map(([, status]) => status))
      expect(missing.size).toBeGreaterThan(0)
      cause()
      await cluster.until(`a pod that is ${[...missing].join(' and ')} (${what})`, () => {
        for (const status of statuses()) missing.delete(status)
        return missing.size === 0
      })
      console.log(`${what}:\n${cluster.kubectl('-n', 'convoy', 'get', 'pods')}`)
      // The others go on meanwhile.
      await moreSteps(3)
      const reasons = run().all('workerLeft').slice(before)
      expect(reasons[0]).toMatchObject({ reason: 'left' })
      mend()
      await workers(3)
    }
  }

  it('the guide, command by command, comes to the bits of a run on bare processes', async () => {
    let section = 'Images'
    await next(section, /^export REGISTRY=/)
    await next(section, /docker build[^]*docker push/)
    await next(section, /^sed /)

    section = 'Start'
    await next(section, /token\.env/)
    const applied = await next(section, /^kubectl apply -k/)
    expect(applied).toMatch(/statefulset.apps\/convoy-coordinator created/)
    await next(section, /rollout status statefulset/)
    await next(section, /rollout status deployment/)
    await next(section, /logs -f/, (said) => said.includes('"event":"step"'))
    await next(section, /port-forward/, async (said) => {
      if (!said.includes('Forwarding from')) return false
      const page = await (await fetch('http://localhost:7311/')).text()
      return page.includes('<title>')
    })

    section = 'Workers come and go'
    for (const count of [2, 5, 1, 3]) {
      await next(section, new RegExp(`scale .*--replicas=${count}$`))
      await workers(count)
      await moreSteps(3)
    }
    console.log(await next(section, /get pods/))
    await next(section, /^export POD=/)
    const before = pods().map(({ metadata }) => metadata.name)
    await next(section, /delete \$POD/)
    await workers(3)
    expect(pods().map(({ metadata }) => metadata.name)).not.toEqual(before)
    await moreSteps(3)
    await next(section, /^export NODE=node2/)
    expect(pods().map(({ spec }) => spec.nodeName)).toContain('node2')
    expect(await next(section, /^kubectl drain/)).toMatch(/evicting pod convoy\/convoy-worker/)
    await workers(3)
    expect(new Set(pods().map(({ spec }) => spec.nodeName))).toEqual(new Set(['node1']))
    await moreSteps(3)
    await next(section, /^kubectl uncordon/)

    section = 'The coordinator goes'
    const reached = run().step
    await next(section, /delete pod convoy-coordinator-0/)
    await next(section, /rollout status/)
    await cluster.until('the run to go on', () => run().all('start').length === 2)
    // It was told in time, so not a step is lost.
    expect(run().all('start')[1]['resumedAt']).toBeGreaterThanOrEqual(reached)
    await workers(3)
    await moreSteps(3)

    section = 'A new version of the workers'
    await next(section, /^docker build/)
    await next(section, /^docker push/)
    await next(section, /^sed /)
    await next(section, /apply -k/)
    await next(section, /rollout status/)
    await workers(3)
    expect(new Set(pods().map(({ spec }) => spec.containers[0].image))).toEqual(
      new Set(['registry.example.com/you/convoy-worker:0.1.1']),
    )
    await moreSteps(3)

    section = 'A new token'
    const starts = run().all('start').length
    await next(section, /token\.env/)
    await next(section, /apply -k/)
    await next(section, /rollout status statefulset/)
    await next(section, /rollout status deployment/)
    await cluster.until('the run to go on', () => run().all('start').length > starts)
    await workers(3)
    await moreSteps(3)

    await troubles()

    // The run comes to its end, and the coordinator stays.
    set('CONVOY_STEPS', String(run().step + 40))
    await reader.run('kubectl apply -k k8s/overlays/cpu')
    await cluster.until('the end of the run', () => run().all('done').at(-1)?.['finished'] === true)

    section = 'The result, and the end'
    await next(section, /cp convoy-coordinator-0/)
    const done = new Followed(path.join(repository, 'runs', 'cifar10')).all('done').at(-1)!
    expect(done).toMatchObject({ event: 'done', mixed: false })
    await next(section, /--replicas=0/)
    await cluster.until('no pods', () => cluster.kubectl('-n', 'convoy', 'get', 'pods', '-o', 'name') === '')
    await next(section, /delete -k/)
    expect(cluster.kubectl('get', 'namespaces')).not.toMatch(/^convoy /m)

    const steps = Number(done['step'])
    expect((await bare(steps))['parametersSha256']).toBe(done['parametersSha256'])
    const { twice, used } = run().ledger()
    expect(twice).toBe(0)
    expect(used).toBe(128 * steps)
    console.log(
      `${steps} steps, ${run().all('workerJoined').length} joinings, ${run().all('start').length} starts`,
    )
    console.log(`parametersSha256 ${String(done['parametersSha256'])}, as on bare processes`)
  }, 1_800_000)

  it('the number of workers follows what the run wants, up and down', async () => {
    // As long as it takes to start three more workers, several times over.
    const steps = stepsIn(200)
    begin('scaled', steps)
    // Five minutes of patience at the end are more than a test has.
    edit(path.join(repository, 'k8s/overlays/autoscale-hpa/autoscaler.yaml'), (text) =>
      text.replace('stabilizationWindowSeconds: 300', 'stabilizationWindowSeconds: 15'),
    )
    cluster.kubectl('create', '-f', definitions('prometheus', 'monitoring.coreos.com_servicemonitors.yaml'))
    let wanted: number | undefined
    const stop = await serveExternalMetric(cluster, folder, 'convoy_workers_wanted', async () => wanted)
    await next('Autoscaling', /apply -k k8s\/overlays\/autoscale-hpa/)
    await next('Autoscaling', /get hpa/)
    const rows: number[][] = []
    const started = Date.now()
    const look = () => {
      const page = cluster.kubectl('get', '--raw', metricsPage)
      const text = /^convoy_workers_wanted (\d+)/m.exec(page)?.[1]
      wanted = text === undefined ? undefined : Number(text)
      const { spec, status } = JSON.parse(
        cluster.kubectl('-n', 'convoy', 'get', 'deployment', 'convoy-worker', '-o', 'json'),
      ) as { spec: { replicas: number }; status: { readyReplicas?: number } }
      const row = [wanted ?? NaN, spec.replicas, status.readyReplicas ?? 0]
      const last = rows.at(-1)?.slice(1)
      if (String(last) !== String(row)) rows.push([Math.round((Date.now() - started) / 1_000), ...row])
      return { replicas: spec.replicas, ready: status.readyReplicas ?? 0 }
    }
    let known = 0
    let most = 0
    await cluster.until('as many workers as are wanted', () => {
      const { replicas, ready } = look()
      if (wanted !== undefined && wanted > 1 && known === 0) known = Date.now()
      most = Math.max(most, replicas)
      return replicas > 1 && replicas === wanted && ready === replicas
    })
    const up = (Date.now() - known) / 1_000
    await cluster.until('the end of the run', () => {
      look()
      return run('scaled').all('done').at(-1)?.['finished'] === true
    })
    const over = Date.now()
    await cluster.until('the floor', () => look().replicas === 1)
    const down = (Date.now() - over) / 1_000
    stop()
    console.log(
      `wanted and ready ${up.toFixed(0)} s after the metric, one worker ${down.toFixed(0)} s after the end`,
    )
    console.log(['s\twanted\tdesired\tready', ...rows.map((row) => row.join('\t'))].join('\n'))
    expect(run('scaled').all('done').at(-1)!['parametersSha256']).toBe(
      (await bare(steps))['parametersSha256'],
    )
    expect(most).toBeGreaterThan(1)
    expect(wanted).toBe(0)

    // KEDA's operator is not here; its definition of a ScaledObject is, and the API server takes ours by it.
    cluster.kubectl('create', '-f', definitions('keda', 'keda.sh_scaledobjects.yaml'))
    const taken = await reader.run('kubectl apply --dry-run=server -k k8s/overlays/autoscale')
    expect(taken).toContain('scaledobject.keda.sh/convoy-worker created')
    await reader.run('kubectl delete -k k8s/overlays/autoscale-hpa')
  }, 1_800_000)

  it(`workers are a Job that Kueue ${kueue.version} admits, suspends and resumes`, async () => {
    const steps = stepsIn(150)
    begin('queued', steps)
    const uninstall = await installKueue(cluster, engine!, folder)
    const section = 'Queues and quota'
    const followed = () => run('queued')
    const queue = () => cluster.kubectl('get', 'clusterqueue', 'default', '-o', 'json')
    const used = () => {
      const { status } = JSON.parse(queue()) as { status: { admittedWorkloads: number } }
      return status.admittedWorkloads
    }
    await next(section, /apply -f - <<EOF/)
    // Memory for three workers of 300 MiB, of the eight.
    const quota = [
      { op: 'replace', path: '/spec/resourceGroups/0/flavors/0/resources/1/nominalQuota', value: '1Gi' },
    ]
    cluster.kubectl('patch', 'clusterqueue', 'default', '--type=json', '-p', JSON.stringify(quota))
    await next(section, /apply -k k8s\/overlays\/kueue/)
    await cluster.until('as many workers as there is quota for', () => followed().workers === 3)
    console.log(await next(section, /get localqueues,workloads,jobs/))
    expect(pods().length).toBe(3)
    await cluster.until('steps', () => followed().step >= 5)
    await next(section, /HoldAndDrain/)
    await cluster.until('no workers', () => followed().workers === 0 && pods().length === 0)
    await cluster.until('the quota to be free', () => used() === 0)
    await next(section, /wait --for=jsonpath/)
    await next(section, /parallelism":2/)
    await next(section, /"stopPolicy":"None"/)
    await cluster.until('two workers', () => followed().workers === 2 && pods().length === 2)
    const joined = followed().all('workerJoined').length
    cluster.kubectl('-n', 'convoy', 'delete', `pod/${pods()[0].metadata.name}`)
    await cluster.until('another', () => followed().all('workerJoined').length > joined)
    await cluster.until('the end of the run', () => followed().all('done').at(-1)?.['finished'] === true)
    await next(section, /wait --for=condition=complete/)
    await cluster.until('the quota to be free again', () => used() === 0)
    const done = followed().all('done').at(-1)!
    expect((await bare(steps))['parametersSha256']).toBe(done['parametersSha256'])
    await reader.run('kubectl delete -k k8s/overlays/kueue --ignore-not-found')
    cluster.kubectl('delete', 'clusterqueue/default', 'resourceflavor/default')
    uninstall()
  }, 1_800_000)

  it('workers and coordinator speak TLS', async () => {
    begin('secured', 200)
    const section = 'TLS'
    await next(section, /^openssl/)
    await next(section, /namespace\.yaml/)
    await next(section, /create secret/)
    await next(section, /^echo "components/)
    await next(section, /apply -k/)
    cluster.kubectl('-n', 'convoy', 'scale', 'deployment/convoy-worker', '--replicas=2')
    await cluster.until('the end of the run', () => run('secured').all('done').at(-1)?.['finished'] === true)
    const settings = cluster.kubectl('-n', 'convoy', 'get', 'configmaps', '-o', 'yaml')
    expect(settings).toContain('CONVOY_COORDINATOR: wss://convoy-coordinator:7311')
    expect(run('secured').all('done').at(-1)!['parametersSha256']).toBe((await bare(200))['parametersSha256'])
  }, 1_800_000)

  it('every command of the guide was run', () => {
    expect([...guide].filter(([, left]) => left.length > 0)).toEqual([])
  })
})

/** The coordinator's figures, through the API server. */
const metricsPage = '/api/v1/namespaces/convoy/services/convoy-coordinator:7311/proxy/metrics'

const bareRuns = new Map<number, Promise<Line>>()
/** What the same training comes to on bare processes, undisturbed. */
function bare(steps: number): Promise<Line> {
  const known = bareRuns.get(steps)
  if (known) return known
  const started = new Convoy(
    [
      ...['train', '--recipe', 'fast', '--steps', String(steps), '--workers', '2', '--engine', 'onednn'],
      ...['--runs', path.join(folder, `bare-${steps}`), '--port', '0', '--json'],
    ],
    settings,
  ).done()
  bareRuns.set(steps, started)
  return started
}

interface Pod {
  metadata: { name: string }
  spec: { nodeName: string; containers: { image: string }[] }
}
