import { writeFileSync } from 'node:fs'
import path from 'node:path'
import type { ContainerEngine } from '../containers/engine.ts'
import { buildImageOf } from './checkout.ts'
import type { Cluster } from './cluster.ts'
import { definitions } from './crds.ts'
import { kueue } from './programs.ts'

const tag = 'localhost/convoy-kueue:1'

/**
 * Installs Kueue by its own manifests, its controller in an image of what was built here; resolves when it answers.
 *
 * @param folder Where files are put.
 * @returns What takes it away.
 */
export async function installKueue(
  cluster: Cluster,
  engine: ContainerEngine,
  folder: string,
): Promise<() => void> {
  const image = path.join(folder, 'kueue.tar')
  buildImageOf(engine, tag, [await kueue.build()], image)
  await cluster.load(image)
  const file = path.join(folder, 'kueue.yaml')
  const manifests = cluster
    .kubectl('kustomize', definitions('kueue'))
    .replace(/image: \S+\/kueue:\S+/, `image: ${tag}`)
    .replace('imagePullPolicy: Always', 'imagePullPolicy: Never')
  writeFileSync(file, manifests)
  // Its definitions are larger than the annotation that a client's apply keeps.
  cluster.kubectl('apply', '--server-side', '-f', file)
  const controller = 'deployment/kueue-controller-manager'
  cluster.kubectl('-n', 'kueue-system', 'rollout', 'status', controller, '--timeout=300s')
  // It is ready before its service leads to it.
  const flavor = { apiVersion: 'kueue.x-k8s.io/v1beta2', kind: 'ResourceFlavor', metadata: { name: 'any' } }
  const asked = path.join(folder, 'flavor.json')
  writeFileSync(asked, JSON.stringify(flavor))
  await cluster.until('Kueue', () => cluster.kubectl('create', '--dry-run=server', '-f', asked) !== '')
  return () => void cluster.kubectl('delete', '-f', file)
}
