import { coordinatorSchema } from '@convoy/coordinator'
import { workerSchema } from '@convoy/worker'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { collect, flagOf, settle, variableOf } from '../../apps/cli/src/options.ts'
import { logSchema } from '../../apps/cli/src/schemas.ts'

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))))

/** A Kubernetes object, as a parser of YAML gives it. */
export interface Manifest {
  apiVersion: string
  kind: string
  metadata: { name: string }
  [key: string]: unknown
}

interface Container {
  name: string
  image?: string
  args?: string[]
  env?: { name: string; value?: string }[]
  envFrom?: { configMapRef?: { name: string }; secretRef?: { name: string } }[]
  securityContext?: {
    runAsNonRoot?: boolean
    privileged?: boolean
    allowPrivilegeEscalation?: boolean
    readOnlyRootFilesystem?: boolean
    capabilities?: { drop?: string[]; add?: string[] }
  }
  resources?: { requests?: Record<string, string>; limits?: Record<string, string> }
  livenessProbe?: object
  readinessProbe?: object
}

interface PodSpec {
  containers: Container[]
  hostNetwork?: boolean
  hostPID?: boolean
  hostIPC?: boolean
  automountServiceAccountToken?: boolean
  securityContext?: { runAsNonRoot?: boolean; runAsUser?: number; seccompProfile?: { type: string } }
  volumes?: { hostPath?: object }[]
}

/** Where the TypeScript type of a kind is: packages made from the OpenAPI documents of Kubernetes and of two operators. */
function typeOf({ apiVersion, kind }: Manifest): { module: string; name: string } {
  const operators: Record<string, string> = {
    'keda.sh': '@kubernetes-models/keda',
    'monitoring.coreos.com': '@kubernetes-models/prometheus-operator',
  }
  const group = apiVersion.split('/')[0]
  return { module: `${operators[group] ?? 'kubernetes-models'}/${apiVersion}`, name: `I${kind}` }
}

/**
 * Checks documents against the types of their kinds, strictly: wrong types, missing fields and unknown ones.
 *
 * Each becomes an object literal of its type, which the TypeScript compiler judges.
 */
export function schemaFaults(manifests: readonly Manifest[]): string[] {
  const file = path.join(root, 'test', 'manifests', 'rendered.ts')
  const source = manifests
    .map((manifest, index) => {
      const { module, name } = typeOf(manifest)
      return `import type { ${name} as T${index} } from '${module}'
export const d${index}: T${index} = ${JSON.stringify(manifest, null, 2)}`
    })
    .join('\n')
  const options: ts.CompilerOptions = {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    types: [],
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
  }
  const host = ts.createCompilerHost(options)
  const judged: ts.CompilerHost = {
    ...host,
    fileExists: (name) => name === file || host.fileExists(name),
    readFile: (name) => (name === file ? source : host.readFile(name)),
    getSourceFile: (name, ...rest) =>
      name === file ? ts.createSourceFile(name, source, rest[0]) : host.getSourceFile(name, ...rest),
  }
  const program = ts.createProgram([file], options, judged)
  const starts = [...source.matchAll(/^export const d\d+/gm)].map(({ index }) => index)
  return ts.getPreEmitDiagnostics(program).map(({ messageText, start = 0 }) => {
    const { kind, metadata } = manifests[Math.max(0, starts.filter((at) => at <= start).length - 1)]
    return `${kind}/${metadata.name}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`
  })
}

/** The pods that documents describe, with the name of what they come from. */
export function podsOf(manifests: readonly Manifest[]): { owner: string; pod: PodSpec }[] {
  return manifests.flatMap((manifest) => {
    const spec = manifest['spec'] as { template?: { spec?: PodSpec } } | undefined
    const pod = spec?.template?.spec
    return pod ? [{ owner: `${manifest.kind}/${manifest.metadata.name}`, pod }] : []
  })
}

/** Breaches of the restricted Pod Security Standard, and of the house's own rules. */
export function policyFaults(manifests: readonly Manifest[]): string[] {
  return podsOf(manifests).flatMap(({ owner, pod }) => {
    const rules: [boolean, string][] = [
      [pod.securityContext?.runAsNonRoot === true, 'runs as root'],
      [(pod.securityContext?.runAsUser ?? 0) > 0, 'has no user id above 0'],
      [pod.securityContext?.seccompProfile?.type === 'RuntimeDefault', 'has no seccomp profile'],
      [!pod.hostNetwork && !pod.hostPID && !pod.hostIPC, 'shares a namespace of its host'],
      [!pod.volumes?.some(({ hostPath }) => hostPath), 'mounts a folder of its host'],
      [pod.automountServiceAccountToken === false, 'mounts a token of the API server'],
    ]
    for (const container of pod.containers) {
      const { image = '', securityContext: context, resources } = container
      rules.push(
        [/:[^/]+$/.test(image) && !image.endsWith(':latest'), `takes ${image}, which is no fixed version`],
        [context?.privileged !== true, 'is privileged'],
        [context?.allowPrivilegeEscalation === false, 'may gain privileges'],
        [context?.readOnlyRootFilesystem === true, 'has a writable root file system'],
        [
          (context?.capabilities?.drop?.includes('ALL') ?? false) && !context?.capabilities?.add,
          'keeps capabilities',
        ],
        [resources?.limits?.['memory'] !== undefined, 'has no limit of memory'],
        [resources?.requests?.['cpu'] !== undefined, 'requests no processor'],
        [container.livenessProbe !== undefined, 'has no liveness probe'],
        [container.readinessProbe !== undefined, 'has no readiness probe'],
      )
    }
    return rules.filter(([kept]) => !kept).map(([, fault]) => `${owner} ${fault}`)
  })
}

/** Flags of the commands that are not options of a schema. */
const COMMON_FLAGS = ['json', 'verbose', 'recipe', 'config']

/** Faults in what a program of Convoy is given: names that it does not know, and values that it would refuse. */
export function optionFaults(
  program: 'coordinator' | 'worker',
  environment: Readonly<Record<string, string>>,
  args: readonly string[],
): string[] {
  const schema = program === 'coordinator' ? coordinatorSchema : workerSchema
  const keys = Object.keys({ ...schema.shape, ...logSchema.shape })
  const faults: string[] = []
  for (const name of Object.keys(environment)) {
    if (name.startsWith('CONVOY_') && !keys.some((key) => variableOf(key) === name)) {
      faults.push(`${program} has no option ${name}`)
    }
  }
  for (const arg of args.filter((text) => text.startsWith('--'))) {
    const flag = arg.slice(2).split('=')[0]
    if (!COMMON_FLAGS.includes(flag) && !keys.some((key) => flagOf(key) === flag)) {
      faults.push(`${program} has no flag --${flag}`)
    }
  }
  try {
    settle(schema, collect(schema, { flags: {}, environment }))
  } catch (error) {
    faults.push((error as Error).message)
  }
  return faults
}

/** Faults in the variables and flags that pods are given, through generated ConfigMaps and Secrets too. */
export function podOptionFaults(manifests: readonly Manifest[]): string[] {
  const sources = new Map(
    manifests
      .filter(({ kind }) => kind === 'ConfigMap' || kind === 'Secret')
      .map((manifest) => {
        const data = (manifest['data'] ?? {}) as Record<string, string>
        const decode = (text: string) =>
          manifest.kind === 'Secret' ? Buffer.from(text, 'base64').toString() : text
        return [
          `${manifest.kind}/${manifest.metadata.name}`,
          Object.fromEntries(Object.entries(data).map(([key, value]) => [key, decode(value)])),
        ]
      }),
  )
  return podsOf(manifests).flatMap(({ owner, pod }) =>
    pod.containers.flatMap(({ name, args = [], env = [], envFrom = [] }) => {
      if (name !== 'coordinator' && name !== 'worker') return [`${owner} has a strange container ${name}`]
      const environment: Record<string, string> = {}
      const faults: string[] = []
      for (const { configMapRef, secretRef } of envFrom) {
        const source = configMapRef ? `ConfigMap/${configMapRef.name}` : `Secret/${secretRef?.name}`
        const found = sources.get(source)
        if (found) Object.assign(environment, found)
        else faults.push(`${owner} takes variables from ${source}, which is not there`)
      }
      // What Kubernetes fills in itself stands for a name.
      for (const { name: variable, value } of env) environment[variable] = value ?? 'pod'
      return [...faults, ...optionFaults(name, environment, args)]
    }),
  )
}
