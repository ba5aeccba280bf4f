import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { scratch } from '../convoy.ts'
import { optionFaults, podOptionFaults, podsOf, policyFaults, schemaFaults, type Manifest } from './check.ts'
import { copyManifests, noKubectl, render } from './render.ts'

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))))
const { folder, remove } = scratch()
afterAll(remove)
const overlays = readdirSync(path.join(root, 'k8s', 'overlays'))

const copied = copyManifests(folder)
const rendered = (place: string) => render(path.join(copied, place))

const find = (manifests: readonly Manifest[], kind: string, name: string) =>
  structuredClone(manifests.find((one) => one.kind === kind && one.metadata.name === name)!)

describe.skipIf(noKubectl)(`manifests${noKubectl ? ` (skipped: ${noKubectl})` : ''}`, () => {
  it.each([...overlays, 'secured'])('%s is valid, safe, and sets only what Convoy knows', (overlay) => {
    const manifests = rendered(`overlays/${overlay}`)
    // Kueue's own kinds have no types; an API server takes them by Kueue's definitions in test/kubernetes.
    expect(schemaFaults(manifests.filter(({ apiVersion }) => !apiVersion.startsWith('kueue')))).toEqual([])
    expect(policyFaults(manifests)).toEqual([])
    expect(podOptionFaults(manifests)).toEqual([])
    expect(new Set(podsOf(manifests).map(({ owner }) => owner))).toEqual(
      new Set([
        `${overlay === 'kueue' ? 'Job' : 'Deployment'}/convoy-worker`,
        'StatefulSet/convoy-coordinator',
      ]),
    )
  })

  it("the kueue overlay's workers are those of the Deployment, but for how they end", () => {
    const podOf = (overlay: string, owner: string) =>
      structuredClone(podsOf(rendered(`overlays/${overlay}`)).find((one) => one.owner === owner)!.pod)
    const job = podOf('kueue', 'Job/convoy-worker') as unknown as Record<string, unknown>
    const { topologySpreadConstraints: _, ...deployed } = podOf(
      'cpu',
      'Deployment/convoy-worker',
    ) as unknown as Record<string, unknown>
    const [{ command, ...container }] = job['containers'] as Record<string, unknown>[]
    expect(String(command)).toMatch(/exit 143/)
    expect({ ...job, containers: [container] }).toEqual({ ...deployed, restartPolicy: 'Never' })
  })

  it('the gpu overlay asks for one GPU and refuses to compute on anything else', () => {
    const manifests = rendered('overlays/gpu')
    const { pod } = podsOf(manifests)[0]
    expect(pod.containers[0].resources?.limits).toMatchObject({ 'nvidia.com/gpu': '1' })
    expect(pod.containers[0].image).toMatch(/convoy-worker-gpu:/)
    const settings = manifests.find(({ metadata }) => metadata.name.startsWith('convoy-worker-'))!
    expect(settings['data']).toMatchObject({ CONVOY_GPU: 'true' })
  })

  it('the base sets neither a namespace nor a tag, and no number of workers', () => {
    const manifests = rendered('base')
    for (const { metadata } of manifests) expect(metadata).not.toHaveProperty('namespace')
    for (const { pod } of podsOf(manifests)) expect(pod.containers[0].image).not.toMatch(/:/)
    expect(find(manifests, 'Deployment', 'convoy-worker')['spec']).not.toHaveProperty('replicas')
  })

  it('workers have time to hand back their work before they are killed', () => {
    const manifests = rendered('overlays/cpu')
    const { spec } = find(manifests, 'Deployment', 'convoy-worker') as unknown as {
      spec: { template: { spec: { terminationGracePeriodSeconds: number } } }
    }
    const settings = manifests.find(({ metadata }) => metadata.name.startsWith('convoy-worker-'))!
    const { CONVOY_GRACE } = settings['data'] as { CONVOY_GRACE: string }
    expect(spec.template.spec.terminationGracePeriodSeconds).toBeGreaterThan(Number(CONVOY_GRACE) + 5)
  })

  it('finds a misspelt field, a wrong type, an unknown flag, a missing probe and a value out of range', () => {
    const manifests = rendered('overlays/cpu')
    const worker = () =>
      find(manifests, 'Deployment', 'convoy-worker') as Manifest & {
        spec: { replicas?: unknown; template: { spec: { containers: Record<string, unknown>[] } } }
      }

    const misspelt = worker()
    misspelt.spec.template.spec.containers[0]['readinesProbe'] = {}
    expect(schemaFaults([misspelt])).toEqual([
      expect.stringMatching(/Deployment\/convoy-worker.*readinesProbe/),
    ])

    const mistyped = worker()
    mistyped.spec.replicas = 'three'
    expect(schemaFaults([mistyped])).toEqual([
      expect.stringMatching(/'string' is not assignable to type 'number/),
    ])

    const unknown = worker()
    unknown.spec.template.spec.containers[0]['args'] = ['--corodinator', 'ws://there']
    expect(podOptionFaults([...manifests, unknown])).toEqual(['worker has no flag --corodinator'])

    const unprobed = worker()
    delete unprobed.spec.template.spec.containers[0]['livenessProbe']
    expect(policyFaults([unprobed])).toEqual(['Deployment/convoy-worker has no liveness probe'])

    expect(optionFaults('coordinator', { CONVOY_EPOCHS: '-1' }, [])).toEqual([
      expect.stringMatching(/--epochs -1/),
    ])
  })
})

describe('compose.yaml', () => {
  interface Service {
    environment: Record<string, string>
    command?: string[]
    build: { target: string; dockerfile: string }
    [key: string]: unknown
  }
  const { services } = parse(readFileSync(path.join(root, 'compose.yaml'), 'utf8')) as {
    services: Record<'coordinator' | 'worker', Service>
  }
  const dockerfile = readFileSync(path.join(root, 'docker', 'Dockerfile'), 'utf8')

  it.each(['coordinator', 'worker'] as const)(
    '%s: known options, no privileges, an image that there is',
    (name) => {
      const service = services[name]
      // ${NAME:-default} is its default, ${NAME:?why} some text.
      const environment = Object.fromEntries(
        Object.entries(service.environment).map(([key, value]) => [
          key,
          value.replace(/\$\{\w+:-([^}]*)\}/g, '$1').replace(/\$\{\w+:\?[^}]*\}/g, 'some-long-text'),
        ]),
      )
      expect(optionFaults(name, environment, service.command ?? [])).toEqual([])
      expect(service).toMatchObject({ read_only: true, cap_drop: ['ALL'] })
      expect(dockerfile).toContain(`AS ${service.build.target}\n`)
    },
  )
})

describe('docker/Dockerfile', () => {
  const text = readFileSync(path.join(root, 'docker', 'Dockerfile'), 'utf8')

  it('takes fixed versions of its bases', () => {
    const bases = [...text.matchAll(/^ARG \w+_IMAGE=(\S+)$/gm)].map(([, image]) => image)
    expect(bases.length).toBeGreaterThan(0)
    for (const image of bases) expect(image).toMatch(/:\d+\.\d+\.\d+/)
  })

  it.each(['coordinator', 'worker', 'worker-gpu'])(
    '%s sets known options and ends as another user than root',
    (target) => {
      const stage = text.split(/^FROM /m).find((part) => part.split('\n')[0].endsWith(` AS ${target}`))!
      const variables = [...stage.matchAll(/^ENV (.*)$/gm)].flatMap(([, line]) => line.split(' '))
      const environment = Object.fromEntries(variables.map((pair) => pair.split('=') as [string, string]))
      const program = target === 'coordinator' ? 'coordinator' : 'worker'
      expect(optionFaults(program, environment, [])).toEqual([])
      expect([...stage.matchAll(/^USER (.*)$/gm)].at(-1)?.[1]).toBe('1000:1000')
    },
  )
})
