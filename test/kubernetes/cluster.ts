import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { stringify } from 'yaml'
import { childrenOf } from '../convoy.ts'
import { writeContainerdConfig, writeKubeletConfig } from './node.ts'

const programs = ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kube-proxy', 'kubelet']
const nodes = ['node1', 'node2']
const dns = '10.96.0.10'

/**
 * Waits until whoever started it ends or closes its input, then ends the cluster and removes what is left of it.
 *
 * The cluster has mounts, network and processes of its own: the kernel takes them away with its first process.
 */
const keeper = `
trap '' INT TERM HUP
unshare --net --mount --pid --fork --kill-child --mount-proc bash -c 'while sleep 3600; do :; done' </dev/null &
echo $!
cat
kill -9 $!
wait
for try in 1 2 3 4 5; do
  find /sys/fs/cgroup -depth -type d -path "*/$GROUP*" -exec rmdir {} + 2>/dev/null && break
  sleep 0.5
done
rm -rf "$FOLDER"
`

/** Settings of the kernel that a kubelet changes and that are not a network's own: it gets files in their place. */
const settings = [
  ...['vm/overcommit_memory', 'vm/panic_on_oom', 'kernel/panic', 'kernel/panic_on_oops'],
  ...['kernel/keys/root_maxkeys', 'kernel/keys/root_maxbytes'],
]

/** The arguments of openssl for a certificate that vouches for itself. */
export const selfSigned = (name: string, key: string, cert: string): string[] => [
  ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
  ...['-subj', `/CN=${name}`, '-keyout', key, '-out', cert],
]

/** A Kubernetes cluster with two nodes on this machine, in namespaces of its own. */
export class Cluster {
  readonly #folder: string
  readonly #group = `convoy-kubernetes-${process.pid}`
  readonly #programs: { name: string; child: ChildProcess }[] = []
  #keeper!: ChildProcess
  #pid!: number
  /** The machine's address in the cluster's network, and the cluster's. */
  readonly host: string
  readonly address: string

  private constructor(folder: string) {
    this.#folder = folder
    const [third, fourth] = [(process.pid >> 6) & 255, (process.pid & 63) * 4]
    this.host = `10.199.${third}.${fourth + 1}`
    this.address = `10.199.${third}.${fourth + 2}`
  }

  /**
   * Starts etcd, the control plane, two nodes, kube-proxy and CoreDNS; resolves when both nodes are ready.
   *
   * @param folder A folder of the cluster's own, which it removes at its end.
   * @param binary The programs; see programs.ts.
   * @param pause A file with the image of the container that holds a pod's namespaces.
   */
  static async start(folder: string, binary: string, pause: string): Promise<Cluster> {
    const cluster = new Cluster(folder)
    try {
      for (const name of ['bin', 'logs', 'volume']) mkdirSync(path.join(folder, name), { recursive: true })
      for (const name of [...programs, 'kubectl', 'coredns']) symlinkSync(binary, cluster.#in('bin', name))
      await cluster.#enter()
      await cluster.#controlPlane()
      for (const node of nodes) cluster.#containerd(node)
      for (const node of nodes) await cluster.load(pause, [node])
      for (const [index, node] of nodes.entries()) cluster.#kubelet(node, index)
      cluster.#network()
      await cluster.until('the nodes', () => {
        const ready = cluster.kubectl('wait', 'node', '--all', '--for=condition=Ready', '--timeout=1s')
        return ready.split('\n').filter((line) => line.includes('met')).length === nodes.length
      })
      cluster.#volume()
      return cluster
    } catch (error) {
      await cluster.close()
      throw error
    }
  }

  #in(...names: string[]): string {
    return path.join(this.#folder, ...names)
  }

  /** What a command needs to speak to the cluster: `kubectl` of its version first, and its address. */
  get environment(): NodeJS.ProcessEnv {
    return {
      ...process.env,
      PATH: `${this.#in('bin')}:${process.env['PATH']}`,
      KUBECONFIG: this.#in('admin.conf'),
    }
  }

  /** Where programs are that come first for who uses `environment`. */
  get bin(): string {
    return this.#in('bin')
  }

  /** Where the volume of a claim is on this machine. */
  get volume(): string {
    return this.#in('volume')
  }

  /** Runs kubectl; throws with what it said where it fails. */
  kubectl(...args: string[]): string {
    const { status, stdout, stderr } = spawnSync(this.#in('bin', 'kubectl'), args, {
      env: this.environment,
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    })
    if (status !== 0) throw new Error(`kubectl ${args.join(' ')}: ${stderr}`)
    return stdout
  }

  /** Creates or changes objects. */
  apply(...objects: object[]): void {
    execFileSync(this.#in('bin', 'kubectl'), ['apply', '-f', '-'], {
      env: this.environment,
      input: objects.map((object) => stringify(object)).join('---\n'),
      stdio: ['pipe', 'ignore', 'inherit'],
    })
  }

  /** Asks for a pod to be evicted, as a drain does; throws where a budget forbids it. */
  evict(namespace: string, name: string): void {
    const eviction = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name, namespace } }
    const file = this.#in('eviction.json')
    writeFileSync(file, JSON.stringify(eviction))
    this.kubectl('create', '--raw', `/api/v1/namespaces/${namespace}/pods/${name}/eviction`, '-f', file)
  }

  /** Gives nodes an image from a file, as a registry would. */
  async load(file: string, to = nodes): Promise<void> {
    for (const node of to)
      execFileSync('ctr', [...this.#ctr(node), 'images', 'import', file], { stdio: 'pipe' })
  }

  /** The arguments of `ctr` for a node's images. */
  #ctr(node: string): string[] {
    return ['-a', this.#in(node, 'containerd.sock'), '-n', 'k8s.io']
  }

  /** Commands that give all nodes the image of the tar on their standard input. */
  get loading(): string {
    const each = nodes.map((node) => `ctr ${this.#ctr(node).join(' ')} images import $file`)
    return `file=$(mktemp) && cat >$file && ${each.join(' && ')} && rm $file`
  }

  /** Waits up to five minutes; an attempt that throws counts as not yet. Fails at once where a program of the cluster ended. */
  async until(what: string, ready: () => boolean | Promise<boolean>, seconds = 300): Promise<void> {
    let reason = ''
    for (const start = Date.now(); Date.now() - start < seconds * 1_000; await sleep(500)) {
      for (const { name, child } of this.#programs)
        if (child.exitCode !== null) throw new Error(`${name} ended: ${this.#log(name)}`)
      try {
        if (await ready()) return
      } catch (error) {
        reason = (error as Error).message
      }
    }
    throw new Error(`waited ${seconds} s for ${what}. ${reason}`)
  }

  #log(name: string): string {
    return readFileSync(this.#in('logs', `${name}.log`), 'utf8').slice(-2_000)
  }

  /** Makes the namespaces, and a cable between their network and this machine's. */
  async #enter(): Promise<void> {
    this.#keeper = spawn('bash', ['-c', keeper], {
      env: { ...process.env, FOLDER: this.#folder, GROUP: this.#group },
      stdio: ['pipe', 'pipe', 'ignore'],
      detached: true,
    })
    const outer = await new Promise<number>((resolve) => {
      this.#keeper.stdout!.once('data', (text: Buffer) => resolve(Number(text.toString())))
    })
    await this.until('namespaces', async () => {
      this.#pid = (await childrenOf(outer))[0]
      return this.#pid > 0
    })
    for (const hierarchy of ['', ...readdirSync('/sys/fs/cgroup')])
      for (const node of nodes) {
        const place = path.join('/sys/fs/cgroup', hierarchy)
        // Of cgroup v2 the root is a hierarchy, of v1 each folder in it.
        if (spawnSync('mountpoint', ['-q', place]).status !== 0 || hierarchy === 'unified') continue
        if (readdirSync(place).includes('cgroup.procs'))
          mkdirSync(path.join(place, this.#group, node), { recursive: true })
      }
    const veth = `convoy${process.pid}`
    const outside = `ip link add ${veth} type veth peer name eth0 netns ${this.#pid}
ip addr add ${this.host}/30 dev ${veth}
ip link set ${veth} up`
    execFileSync('bash', ['-ec', outside])
    // What programs would keep in fixed places of the machine goes into memory, and the nodes' images, which are gone sooner.
    const images = nodes.map((node) => this.#in(node, 'root'))
    const inside = `mount --make-rshared /
mkdir -p ${images.join(' ')}
for place in /run /var/lib /var/log ${images.join(' ')}; do mount -t tmpfs tmpfs $place; done
for name in ${settings.join(' ')}; do
  mkdir -p ${this.#in('sys')}/$(dirname $name)
  cat /proc/sys/$name > ${this.#in('sys')}/$name
  mount --bind ${this.#in('sys')}/$name /proc/sys/$name
done
mount --bind /dev/null /etc/resolv.conf
ip link set lo up
ip addr add ${dns}/32 dev lo
ip addr add ${this.address}/30 dev eth0
ip link set eth0 up
ip route add default via ${this.host}
echo 1 > /proc/sys/net/ipv4/ip_forward`
    execFileSync('nsenter', [...this.#inside, 'bash', '-ec', inside])
  }

  get #inside(): string[] {
    return ['-t', String(this.#pid), '-n', '-m', '-p']
  }

  /** Starts a program of the cluster, its log in logs/NAME.log. */
  #run(name: string, program: string, ...args: string[]): void {
    const log = this.#in('logs', `${name}.log`)
    // `exec` keeps the number of arguments and quoting as they are.
    const command = ['bash', '-c', 'log=$1; shift; exec "$@" >>"$log" 2>&1', 'bash', log, program, ...args]
    const child = spawn('nsenter', [...this.#inside, ...command], { stdio: 'ignore', env: this.environment })
    this.#programs.push({ name, child })
  }

  async #controlPlane(): Promise<void> {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    writeFileSync(this.#in('accounts.key'), privateKey.export({ type: 'pkcs1', format: 'pem' }))
    // Who says these words is believed to be these users.
    const users = [
      'admin,admin,1,system:masters',
      ...nodes.map((node) => `${node},system:node:${node},${node},system:nodes`),
    ]
    writeFileSync(this.#in('tokens.csv'), `${users.join('\n')}\n`)
    // By this it is the API server that speaks to APIs that others serve, such as Kueue's.
    const [key, cert] = [this.#in('front.key'), this.#in('front.crt')]
    execFileSync('openssl', selfSigned('front-proxy', key, cert), { stdio: 'pipe' })
    const etcd = 'http://127.0.0.1:2379'
    this.#run(
      ...(['etcd', 'etcd', '--data-dir', this.#in('etcd'), '--listen-client-urls', etcd] as const),
      ...['--advertise-client-urls', etcd, '--listen-peer-urls', 'http://127.0.0.1:2380'],
    )
    this.#run(
      ...(['kube-apiserver', 'kube-apiserver', `--etcd-servers=${etcd}`, '--secure-port=6443'] as const),
      ...[`--advertise-address=${this.address}`, `--cert-dir=${this.#in('certificates')}`],
      ...[`--service-account-key-file=${this.#in('accounts.key')}`, '--authorization-mode=Node,RBAC'],
      ...[`--service-account-signing-key-file=${this.#in('accounts.key')}`],
      ...[
        '--service-account-issuer=https://kubernetes.default.svc',
        '--service-cluster-ip-range=10.96.0.0/16',
      ],
      ...[
        `--token-auth-file=${this.#in('tokens.csv')}`,
        '--enable-admission-plugins=NodeRestriction',
        '--kubelet-preferred-address-types=InternalIP',
        `--requestheader-client-ca-file=${cert}`,
        '--requestheader-username-headers=X-Remote-User',
        '--requestheader-group-headers=X-Remote-Group',
        `--proxy-client-cert-file=${cert}`,
        `--proxy-client-key-file=${key}`,
      ],
    )
    const certificate = this.#in('certificates', 'apiserver.crt')
    for (const user of ['admin', ...nodes]) this.#kubeconfig(user, certificate)
    await this.until('the API server', () => this.kubectl('get', '--raw', '/readyz') === 'ok')
    const admin = [`--kubeconfig=${this.#in('admin.conf')}`, '--leader-elect=false']
    this.#run(
      ...(['kube-controller-manager', 'kube-controller-manager', ...admin] as const),
      ...[`--service-account-private-key-file=${this.#in('accounts.key')}`, `--root-ca-file=${certificate}`],
      '--use-service-account-credentials',
    )
    this.#run('kube-scheduler', 'kube-scheduler', ...admin)
  }

  #kubeconfig(user: string, certificate: string): void {
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [
        {
          name: 'convoy',
          cluster: { server: `https://${this.address}:6443`, 'certificate-authority': certificate },
        },
      ],
      users: [{ name: user, user: { token: user } }],
      contexts: [{ name: 'convoy', context: { cluster: 'convoy', user } }],
      'current-context': 'convoy',
    }
    writeFileSync(this.#in(`${user}.conf`), JSON.stringify(config))
  }

  /** The runtime of a node's containers, with a network in which each pod has a cable of its own to the machine. */
  #containerd(node: string): void {
    const place = this.#in(node)
    writeContainerdConfig(place, node, nodes.indexOf(node))
    this.#run(`containerd-${node}`, 'containerd', '--config', path.join(place, 'containerd.toml'))
  }

  #kubelet(node: string, index: number): void {
    const place = this.#in(node)
    writeKubeletConfig(place, node, index, this.#group, dns)
    this.#run(
      ...([`kubelet-${node}`, 'kubelet', `--config=${place}/kubelet.json`] as const),
      ...[`--kubeconfig=${this.#in(`${node}.conf`)}`, `--hostname-override=${node}`],
      ...[`--root-dir=${place}/kubelet`, `--node-ip=${this.address}`],
    )
  }

  /** What makes the names and addresses of services lead to pods. */
  #network(): void {
    this.#run(
      ...(['kube-proxy', 'kube-proxy', `--kubeconfig=${this.#in('admin.conf')}`] as const),
      ...['--hostname-override=node1', '--proxy-mode=iptables', '--cluster-cidr=10.244.0.0/16'],
      // What is a whole machine's stays as it is.
      ...['--conntrack-max-per-core=0', '--conntrack-tcp-timeout-established=0'],
      '--conntrack-tcp-timeout-close-wait=0',
    )
    const zones = 'cluster.local in-addr.arpa'
    const corefile = `.:53 {
  bind ${dns}
  errors
  kubernetes ${zones} {
    kubeconfig ${this.#in('admin.conf')}
  }
}
`
    writeFileSync(this.#in('Corefile'), corefile)
    this.#run('coredns', this.#in('bin', 'coredns'), '-conf', this.#in('Corefile'))
  }

  /** A volume on the first node, for the one claim that the coordinator makes. */
  #volume(): void {
    this.apply({
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name: 'volume' },
      spec: {
        capacity: { storage: '5Gi' },
        accessModes: ['ReadWriteOnce'],
        persistentVolumeReclaimPolicy: 'Retain',
        local: { path: this.volume },
        nodeAffinity: {
          required: {
            nodeSelectorTerms: [
              { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: ['node1'] }] },
            ],
          },
        },
      },
    })
  }

  /** Ends everything and removes the folder. */
  async close(): Promise<void> {
    if (this.#keeper === undefined) return rmSync(this.#folder, { recursive: true, force: true })
    const over = new Promise((resolve) => this.#keeper.once('close', resolve))
    this.#keeper.stdin!.end()
    await over
  }
}
