import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir, totalmem } from 'node:os'
import path from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { allowance, workersFor } from './machine.ts'

const roots: string[] = []
afterEach(() => roots.splice(0).forEach((root) => rmSync(root, { recursive: true })))

/** A machine's /proc and /sys with these files. */
function machine(files: Record<string, string>): string {
  const root = mkdtempSync(path.join(tmpdir(), 'convoy-machine-'))
  roots.push(root)
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(root, file)), { recursive: true })
    writeFileSync(path.join(root, file), `${text}\n`)
  }
  return root
}

const v1 = (controller: string) =>
  `35 31 0:32 / /sys/fs/cgroup/${controller} rw,relatime - cgroup cgroup rw,${controller}`
const v2 = '41 31 0:38 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate'

describe('what a process may use', () => {
  it.each([
    [
      'version 2, in a container',
      {
        'proc/self/cgroup': '0::/',
        'proc/self/mountinfo': v2,
        'sys/fs/cgroup/cpu.max': '50000 100000',
        'sys/fs/cgroup/memory.max': '536870912',
      },
      { quota: 0.5, memoryLimit: 536_870_912 },
    ],
    [
      'version 2, the limit above the own group',
      {
        'proc/self/cgroup': '0::/user.slice/run.scope',
        'proc/self/mountinfo': v2,
        'sys/fs/cgroup/user.slice/cpu.max': '150000 100000',
        'sys/fs/cgroup/user.slice/run.scope/cpu.max': 'max 100000',
        'sys/fs/cgroup/user.slice/run.scope/memory.max': 'max',
      },
      { quota: 1.5, memoryLimit: undefined },
    ],
    [
      'version 1, its path that of the host',
      {
        'proc/self/cgroup': '4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc',
        'proc/self/mountinfo': [
          '35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory',
          '36 31 0:33 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct',
        ].join('\n'),
        'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': '300000',
        'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us': '200000',
        'sys/fs/cgroup/memory/memory.limit_in_bytes': '268435456',
      },
      { quota: 1.5, memoryLimit: 268_435_456 },
    ],
    [
      'version 1 without limits',
      {
        'proc/self/cgroup': '4:memory:/\n3:cpu:/\n0::/',
        'proc/self/mountinfo': [v1('memory'), v1('cpu'), v2].join('\n'),
        'sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1',
        'sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000',
        'sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712',
      },
      { quota: undefined, memoryLimit: undefined },
    ],
    [
      'groups out of sight',
      { 'proc/self/cgroup': '0::/../..', 'proc/self/mountinfo': v2 },
      { quota: undefined, memoryLimit: undefined },
    ],
    ['no groups', {}, { quota: undefined, memoryLimit: undefined }],
    ['nonsense', { 'proc/self/cgroup': 'x', 'proc/self/mountinfo': 'y - z' }, { quota: undefined }],
  ])('is read: %s', (_, files, expected) => {
    expect(allowance(machine(files))).toMatchObject({
      ...expected,
      affinity: availableParallelism(),
      memory: totalmem(),
    })
  })

  const real = { cpu: '/sys/fs/cgroup/cpu/convoy-test', memory: '/sys/fs/cgroup/memory/convoy-test' }
  const can = () => {
    try {
      for (const folder of Object.values(real)) mkdirSync(folder)
      return existsSync(path.join(real.cpu, 'cpu.cfs_quota_us'))
    } catch {
      return false
    } finally {
      for (const folder of Object.values(real)) if (existsSync(folder)) rmdirSync(folder)
    }
  }
  it.skipIf(!can())(
    'is what doctor shows in real groups (skipped where root cannot make them, version 1)',
    () => {
      try {
        for (const folder of Object.values(real)) mkdirSync(folder)
        writeFileSync(path.join(real.cpu, 'cpu.cfs_quota_us'), '50000')
        writeFileSync(path.join(real.memory, 'memory.limit_in_bytes'), '1000000000')
        const inside = Object.values(real).map((folder) => `echo $$ > ${folder}/cgroup.procs`)
        const launch = path.resolve(import.meta.dirname, '../../../tools/launch.mjs')
        const command = [...inside, `exec "${process.execPath}" "${launch}" doctor --json`].join(' && ')
        const text = execFileSync('sh', ['-c', command], { encoding: 'utf8' })
        expect(text).toMatch(/a quota of 0.5 cores, 0.9 GiB of/)
        expect(text).toMatch(/1 worker/)
      } finally {
        for (const folder of Object.values(real)) rmdirSync(folder)
      }
    },
  )
})

describe('the number of workers', () => {
  const all = { cores: 64, affinity: 64, quota: undefined, memory: 64e9, memoryLimit: undefined }
  it.each([
    [all, 1, { count: 64 }],
    [all, 4, { count: 16 }],
    [{ ...all, affinity: 2 }, 1, { count: 2, bound: undefined }],
    [{ ...all, quota: 0.5 }, 1, { count: 1, bound: 'the quota of 0.5 cores' }],
    [{ ...all, quota: 2.5 }, 1, { count: 3, bound: 'the quota of 2.5 cores' }],
    [{ ...all, quota: 100 }, 1, { count: 64, bound: undefined }],
    [{ ...all, memoryLimit: 1e9 }, 1, { count: 2, bound: 'memory of 1.0 GB' }],
    [{ ...all, memoryLimit: 1e8 }, 1, { count: 1, bound: 'memory of 0.1 GB' }],
    [{ ...all, affinity: 1, quota: 0.5 }, 2, { count: 1, bound: undefined }],
  ])('follows from %j with %i threads', (allowed, threads, expected) => {
    expect(workersFor(allowed, threads)).toMatchObject(expected)
  })
})
