import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'

/**
 * Writes what a node's containerd is set up by into the node's folder, `containerd.toml` and its network.
 *
 * @param place The node's folder.
 * @param index The node's number, from 0.
 */
export function writeContainerdConfig(place: string, node: string, index: number): void {
  mkdirSync(path.join(place, 'net.d'), { recursive: true })
  const ipam = {
    type: 'host-local',
    dataDir: path.join(place, 'addresses'),
    ranges: [[{ subnet: `10.244.${index}.0/24` }]],
    routes: [{ dst: '0.0.0.0/0' }],
  }
  const network = { cniVersion: '0.4.0', name: node, plugins: [{ type: 'ptp', ipMasq: false, ipam }] }
  writeFileSync(path.join(place, 'net.d', '10.conflist'), JSON.stringify(network))
  // Where an oom score may not be lowered, asking for it would end every sandbox.
  writeFileSync(
    path.join(place, 'containerd.toml'),
    `version = 2
root = "${place}/root"
state = "${place}/state"
[grpc]
  address = "${place}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "${place}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "localhost/convoy-pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "${place}/net.d"
`,
  )
}

/**
 * Writes what a node's kubelet is set up by into the node's folder, `kubelet.json`.
 *
 * @param place The node's folder.
 * @param index The node's number, from 0.
 * @param group The cluster's control group.
 * @param dns The address of the cluster's DNS server.
 */
export function writeKubeletConfig(
  place: string,
  node: string,
  index: number,
  group: string,
  dns: string,
): void {
  writeFileSync(path.join(place, 'resolv.conf'), `nameserver ${dns}\n`)
  const config = {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    port: 10250 + 10 * index,
    healthzPort: 10248 + 10 * index,
    failCgroupV1: false,
    failSwapOn: false,
    cgroupDriver: 'cgroupfs',
    cgroupRoot: `/${group}/${node}`,
    enforceNodeAllocatable: [],
    evictionHard: { 'memory.available': '100Mi' },
    // Only this machine's root is in the network that it listens in.
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: 'AlwaysAllow' },
    containerRuntimeEndpoint: `unix://${place}/containerd.sock`,
    podLogsDir: path.join(place, 'pods'),
    resolvConf: path.join(place, 'resolv.conf'),
    clusterDNS: [dns],
    clusterDomain: 'cluster.local',
    nodeStatusUpdateFrequency: '5s',
  }
  writeFileSync(path.join(place, 'kubelet.json'), JSON.stringify(config))
}
