import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { selfSigned, type Cluster } from './cluster.ts'

const group = 'external.metrics.k8s.io'
const version = 'v1beta1'

/**
 * A metrics adapter: serves one metric of a namespace by the external metrics API, and registers itself with the API server.
 *
 * https://github.com/kubernetes/metrics/blob/v0.36.3/pkg/apis/external_metrics/v1beta1/types.go
 *
 * @param folder Where its certificate is put.
 * @param read The metric's value now; undefined where there is none, which is an empty list and not 0.
 * @returns What ends it.
 */
export async function serveExternalMetric(
  cluster: Cluster,
  folder: string,
  name: string,
  read: (namespace: string) => Promise<number | undefined>,
): Promise<() => void> {
  const [key, cert] = ['adapter.key', 'adapter.crt'].map((file) => path.join(folder, file))
  execFileSync('openssl', selfSigned('metrics', key, cert), { stdio: 'pipe' })
  const root = `/apis/${group}/${version}`
  const answer = async (url: string): Promise<object | undefined> => {
    if (url === root) {
      const resource = {
        name,
        singularName: '',
        namespaced: true,
        kind: 'ExternalMetricValueList',
        verbs: ['get'],
      }
      return {
        kind: 'APIResourceList',
        apiVersion: 'v1',
        groupVersion: `${group}/${version}`,
        resources: [resource],
      }
    }
    const asked = new RegExp(`^${root}/namespaces/([^/]+)/${name}$`).exec(url)
    if (!asked) return undefined
    const value = await read(asked[1])
    const item = {
      metricName: name,
      metricLabels: {},
      timestamp: new Date().toISOString(),
      value: String(value),
    }
    return {
      kind: 'ExternalMetricValueList',
      apiVersion: `${group}/${version}`,
      metadata: {},
      items: value === undefined ? [] : [item],
    }
  }
  const server = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (request, response) => {
    void answer(request.url!.split('?')[0]).then((body) => {
      response.writeHead(body ? 200 : 404, { 'content-type': 'application/json' })
      response.end(JSON.stringify(body ?? {}))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, cluster.host, resolve))
  const { port } = server.address() as AddressInfo
  const metadata = { name: 'metrics-adapter', namespace: 'kube-system' }
  cluster.apply(
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata,
      spec: { ports: [{ name: 'https', port: 443, targetPort: port }] },
    },
    {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { ...metadata, labels: { 'kubernetes.io/service-name': metadata.name } },
      addressType: 'IPv4',
      ports: [{ name: 'https', port, protocol: 'TCP' }],
      endpoints: [{ addresses: [cluster.host], conditions: { ready: true } }],
    },
    {
      apiVersion: 'apiregistration.k8s.io/v1',
      kind: 'APIService',
      metadata: { name: `${version}.${group}` },
      spec: {
        ...{ group, version, groupPriorityMinimum: 100, versionPriority: 100 },
        service: { name: metadata.name, namespace: metadata.namespace, port: 443 },
        insecureSkipTLSVerify: true,
      },
    },
  )
  return () => {
    // A namespace is not deleted while an API is registered that does not answer.
    cluster.kubectl('delete', 'apiservice', `${version}.${group}`)
    server.closeAllConnections()
    server.close()
  }
}
