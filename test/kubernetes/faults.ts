import type { Cluster } from './cluster.ts'

/** What befalls workers, by its name in the guide's table. */
export interface Fault {
  cause: () => void
  mend: () => void
}

/**
 * The faults of the guide's table.
 *
 * @param victim The name of a pod that a fault may fall on, now.
 */
export function faultsOf(cluster: Cluster, victim: () => string): Record<string, Fault> {
  const deployment = 'deployment/convoy-worker'
  const kubectl = (...args: string[]) => void cluster.kubectl('-n', 'convoy', ...args)
  const deleteOne = () => kubectl('delete', 'pod', victim(), '--wait=false')
  const undo = () => {
    kubectl('rollout', 'undo', deployment)
    kubectl('rollout', 'status', deployment, '--timeout=300s')
  }
  const missing = 'worker=registry.example.com/you/convoy-worker:9.9.9'
  return {
    'pod deleted': { cause: deleteOne, mend: () => undefined },
    'pod evicted': { cause: () => cluster.evict('convoy', victim()), mend: () => undefined },
    'no node takes it': {
      cause: () => {
        kubectl('cordon', 'node1', 'node2')
        deleteOne()
      },
      mend: () => kubectl('uncordon', 'node1', 'node2'),
    },
    'memory limit too low': {
      cause: () => kubectl('set', 'resources', deployment, '--requests=memory=32Mi', '--limits=memory=48Mi'),
      mend: undo,
    },
    'image missing': { cause: () => kubectl('set', 'image', deployment, missing), mend: undo },
  }
}
