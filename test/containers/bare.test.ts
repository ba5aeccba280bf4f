import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, existsSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root, scratch, type Line } from '../convoy.ts'
import { findEngine, prepareBase } from './engine.ts'

// In an archive of the sources there is no repository to clone.
const { engine, reason } = existsSync(path.join(root, '.git'))
  ? await findEngine()
  : { reason: 'there is no git repository' }
const { folder, remove } = scratch()

/** What says where packages are to be had: in there as on this machine. */
const registries = ['npm_config_registry', 'PIP_INDEX_URL', 'HTTPS_PROXY', 'HTTP_PROXY', 'NO_PROXY']

// What a fetch does that is cut off, has another sum or gets no answer, libs/engine-onednn/src/setup.test.ts shows.
describe.skipIf(reason)(`the first command on a bare system${reason ? ` (skipped: ${reason})` : ''}`, () => {
  const clone = path.join(folder, 'clone')
  /** The user's home: it outlives each container. */
  const volume = `convoy-bare-${process.pid}`
  let image: string
  let unreachable: string

  /** Runs a script of `sh` in the home of the user `node`, and gives what it wrote, standard error included. */
  const inside = (network: 'host' | 'none', script: string, environment: readonly string[] = []) => {
    const result = spawnSync(
      engine!.command,
      [
        ...['run', '--rm', '--user', 'node', '--network', network, '--workdir', '/home/node'],
        ...['-v', `${clone}:/clone:ro`, '-v', `${volume}:/home/node`],
        ...[...registries, ...environment].flatMap((variable) => ['-e', variable]),
        ...[image, 'sh', '-c', `exec 2>&1; ${script}`],
      ],
      { env: engine!.environment, encoding: 'utf8', maxBuffer: 1 << 26 },
    )
    return result.stdout + result.stderr
  }

  /** Trains on drawn images: what a person reads, the engines of all workers, and what the run came to. */
  const train = (network: 'host' | 'none', name: string, options: string, environment?: string[]) => {
    const text = inside(
      network,
      `cd convoy && ./convoy train --name ${name} ${options} --limit-test 20; cat runs/${name}/metrics.jsonl`,
      environment,
    )
    const lines = text.split('\n').filter((line) => line.startsWith('{'))
    const events = lines.map((line) => JSON.parse(line) as Line)
    const joined = events.filter(({ event }) => event === 'workerJoined')
    const engines = [...new Set(joined.map(({ engine }) => engine as string))].join()
    return { text, engines, done: events.find(({ event }) => event === 'done') }
  }

  beforeAll(() => {
    image = prepareBase(engine!)
    execFileSync('git', ['clone', '-q', root, clone])
    chmodSync(folder, 0o755)
    inside('host', 'cp -r /clone convoy')
    const tried = inside('host', 'npm ping && echo reached')
    unreachable = tried.endsWith('reached\n') ? '' : tried.trim()
  }, 600_000)
  afterAll(async () => {
    engine!.run('volume', 'rm', '-f', volume)
    await engine!.close()
    remove()
  })

  it('finds no OpenMP, Python or compiler there, and is not run by root', () => {
    const found = inside('none', "id -u; find / -name 'libgomp*' 2>/dev/null; command -v python3 cc gcc git")
    expect(found).toBe('1000\n')
  })

  it(
    'fetches oneDNN and trains with it, and fetches nothing the second time',
    { timeout: 600_000 },
    ({ skip }) => {
      if (unreachable) skip(`npm's registry is not in reach: ${unreachable}`)
      const options = '--data synthetic --limit-train 256 --epochs 1 --width 0.25'
      const first = train('host', 'first', options)
      expect(first.text).toMatch(/^installing packages[^]*^building[^]*^engine +oneDNN was fetched into /m)
      expect(first.engines).toMatch(/^oneDNN/)
      // Nothing else than what it has can be had now.
      const second = train('none', 'second', options)
      expect(second.text).not.toMatch(/install|building|fetch/)
      expect(second.engines).toBe(first.engines)
      expect(second.done).toMatchObject({
        finished: true,
        parametersSha256: first.done?.['parametersSha256'],
      })
    },
  )

  it('trains on WebAssembly where nothing is to be had', { timeout: 600_000 }, ({ skip }) => {
    if (unreachable) skip(`npm's registry is not in reach: ${unreachable}`)
    const { text, engines, done } = train('none', 'third', '--steps 2', ['CONVOY_CACHE=/home/node/empty'])
    expect(text).toMatch(
      /^engine +WebAssembly, about \d times slower than oneDNN: oneDNN could not be fetched/m,
    )
    expect(text).toMatch(/^recipe +demo/m)
    expect(engines).toMatch(/wasm-simd$/)
    expect(done).toMatchObject({ step: 2 })
  })
})
