import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, totalmem } from 'node:os'
import path from 'node:path'

/** What a worker of All-CNN-C and a coordinator need at most, in bytes. */
const [WORKER, COORDINATOR] = [250e6, 400e6]

/** What this process may use of the machine. */
export interface Allowance {
  /** Cores of the machine, and those that the process may run on (affinity). */
  readonly cores: number
  readonly affinity: number
  /** Cores' worth of time that the cgroup's quota gives; undefined where there is none. */
  readonly quota: number | undefined
  /** Memory of the machine in bytes, and the cgroup's limit where that is less. */
  readonly memory: number
  readonly memoryLimit: number | undefined
}

/** Where a control group of some hierarchy is, and all above it that can be seen, innermost first. */
function groups(root: string, controller: string): { version: 1 | 2; folders: string[] } | undefined {
  const read = (file: string) => readFileSync(path.join(root, file), 'utf8').trim().split('\n')
  const lines = read('/proc/self/cgroup').map((line) => /^\d+:([^:]*):(.*)$/.exec(line))
  const own = (version: 1 | 2) =>
    lines.find((line) => (version === 2 ? line?.[1] === '' : line?.[1].split(',').includes(controller)))?.[2]
  // Where there are both, a controller is in one of them; version 1 names it.
  const version = own(1) === undefined ? 2 : 1
  const place = own(version)
  if (place === undefined) return undefined
  for (const line of read('/proc/self/mountinfo')) {
    const [before, after = ''] = line.split(' - ')
    const [, , , from, escaped] = before.split(' ')
    const [type, , options = ''] = after.split(' ')
    if (type !== (version === 2 ? 'cgroup2' : 'cgroup')) continue
    if (version === 1 && !options.split(',').includes(controller)) continue
    const mount = escaped.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)))
    // A container may see its group as the mount's root, whatever its own path says.
    const below = from === '/' ? place : place.startsWith(from) ? place.slice(from.length) : ''
    const parts = below.split('/').filter((part) => part !== '')
    const seen = parts.includes('..') ? [] : parts
    const folders = [...seen, ''].map((_, up) => path.join(root, mount, ...seen.slice(0, seen.length - up)))
    return { version, folders }
  }
  return undefined
}

/** The least of what the files of a process's groups say; undefined where none says anything. Never throws. */
function least(root: string, controller: string, limit: (version: 1 | 2, read: Reader) => number) {
  try {
    const { version, folders } = groups(root, controller) ?? { version: 2, folders: [] }
    const limits = folders.map((folder) => {
      try {
        return limit(version, (name) => readFileSync(path.join(folder, name), 'utf8').trim())
      } catch {
        return NaN
      }
    })
    const least = Math.min(...limits.filter((one) => one > 0))
    return Number.isFinite(least) ? least : undefined
  } catch {
    // No Linux, or no control groups.
    return undefined
  }
}

type Reader = (file: string) => string

/**
 * What this process may use. Node.js counts affinity only before version 22.12, so the cgroup's files (version 1 and 2) are
 * read here. https://docs.kernel.org/admin-guide/cgroup-v2.html
 *
 * @param root Where /proc and /sys are; for tests.
 */
export function allowance(root = '/'): Allowance {
  const quota = least(root, 'cpu', (version, read) => {
    const [time, period] =
      version === 2 ? read('cpu.max').split(' ') : [read('cpu.cfs_quota_us'), read('cpu.cfs_period_us')]
    return Number(time) / Number(period)
  })
  const limit = least(root, 'memory', (version, read) =>
    Number(read(version === 2 ? 'memory.max' : 'memory.limit_in_bytes')),
  )
  const memory = totalmem()
  return {
    cores: cpus().length || availableParallelism(),
    affinity: availableParallelism(),
    quota,
    memory,
    memoryLimit: limit !== undefined && limit < memory ? limit : undefined,
  }
}

/** In words, as `doctor` shows it. */
export function allowanceText({ cores, affinity, quota, memory, memoryLimit }: Allowance): string {
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(bytes < 10 * 2 ** 30 ? 1 : 0)} GiB`
  return [
    affinity < cores ? `${affinity} of ${cores} cores` : `${cores} cores`,
    ...(quota === undefined ? ['no quota'] : [`a quota of ${Number(quota.toFixed(2))} cores`]),
    memoryLimit === undefined ? gib(memory) : `${gib(memoryLimit)} of ${gib(memory)}`,
  ].join(', ')
}

/** How many workers may run here, and what allows no more where it is not the number of cores. */
export function workersFor(
  { affinity, quota = Infinity, memory, memoryLimit = memory }: Allowance,
  threads: number,
): { count: number; bound: string | undefined } {
  const byCores = Math.max(1, Math.floor(affinity / threads))
  const byQuota = Math.max(1, Math.floor(Math.ceil(quota) / threads))
  const byMemory = Math.max(1, Math.floor((memoryLimit - COORDINATOR) / WORKER))
  const count = Math.min(byCores, byQuota, byMemory)
  const bound =
    count === byCores
      ? undefined
      : count === byQuota
        ? `the quota of ${Number(quota.toFixed(2))} cores`
        : `memory of ${(memoryLimit / 1e9).toFixed(1)} GB`
  return { count, bound }
}
