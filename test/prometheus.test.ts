import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { Convoy, freePort, scratch, type Line } from './convoy.ts'

const programs = ['/usr/bin/prometheus', '/usr/bin/promtool']
const has = programs.every((program) => existsSync(program))
const unless = has ? '' : ' (skipped: there is no /usr/bin/prometheus; apt-get install prometheus)'

const { folder, remove } = scratch()
const processes: ChildProcess[] = []
afterAll(async () => {
  for (const child of processes) {
    const ended = child.exitCode ?? child.signalCode ?? new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGKILL')
    await ended
  }
  remove()
})
const convoy = (...args: string[]) => {
  const made = new Convoy(args)
  processes.push(made.child)
  return made
}

describe.skipIf(!has)(`Prometheus${unless}`, () => {
  it('scrapes a run, and its figures are those of the run', async () => {
    const token = 'a-secret-token'
    const run = convoy(
      ...['coordinator', '--data', process.env['CONVOY_DATA'] || 'synthetic', '--limit-train', '1000'],
      ...['--limit-test', '100', '--width', '0.125', '--batch-size', '64', '--epochs', '2', '--stay'],
      ...['--tensorboard', '--runs', folder, '--name', 'scraped', '--port', '0', '--token', token, '--json'],
    )
    const url = await run.address()
    const target = new URL(url).host

    const port = await freePort()
    const config = path.join(folder, 'prometheus.yml')
    writeFileSync(
      config,
      `global: { scrape_interval: 1s }
scrape_configs:
  - job_name: convoy
    authorization: { credentials: ${token} }
    static_configs: [{ targets: ['${target}'] }]
`,
    )
    const checked = spawnSync(programs[1], ['check', 'config', config], { encoding: 'utf8' })
    expect(checked.status, checked.stderr).toBe(0)
    processes.push(
      spawn(
        programs[0],
        [
          ...[`--config.file=${config}`, `--storage.tsdb.path=${path.join(folder, 'tsdb')}`],
          ...[`--web.listen-address=127.0.0.1:${port}`, '--log.level=error'],
        ],
        { stdio: 'ignore' },
      ),
    )
    /** What Prometheus has of a metric now: its values, by the labels that are the metric's own. */
    const query = async (expression: string): Promise<Record<string, number>> => {
      const address = `http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(expression)}`
      const answer = await fetch(address).catch(() => undefined)
      // Until it has read its files, it says 503.
      if (!answer?.ok) return {}
      const { data } = (await answer.json()) as {
        data: { result: { metric: Record<string, string>; value: [number, string] }[] }
      }
      return Object.fromEntries(
        data.result.map(({ metric, value }) => {
          const { __name__: _, instance: __, job: ___, ...labels } = metric
          return [Object.values(labels).join(), Number(value[1])]
        }),
      )
    }
    const one = async (expression: string) => (await query(expression))['']
    const until = async (expression: string, value: number) => {
      while ((await one(expression)) !== value) await sleep(200)
    }
    await until('up', 1)
    expect(await one('convoy_steps_total')).toBe(0)

    for (let i = 0; i < 3; i++) {
      const stranger = new WebSocket(url)
      const [error] = (await once(stranger, 'error')) as [Error]
      expect(error.message).toContain('401')
    }
    for (const name of ['one', 'two'])
      convoy('worker', '--coordinator', url, '--token', token, '--worker-name', name)
    await run.until((now) => now.event('done'))
    const events = <T extends string>(name: T) => run.lines.filter(({ event }) => event === name)
    const steps = events('step') as (Line & Record<string, number>)[]
    const sum = (key: string) => steps.reduce((total, step) => total + step[key], 0)
    const last = steps.at(-1)!
    const [test] = events('test').slice(-1)
    expect(steps.length).toBe(32)
    // Its scrapes are a second apart; the last one has the run's end.
    await until('convoy_steps_total', steps.length)
    await until('convoy_test_loss', test['testLoss'] as number)

    expect(await one('up')).toBe(1)
    expect(await one('convoy_step')).toBe(32)
    expect(await one('convoy_epoch')).toBe(2)
    expect(await one('convoy_samples_total')).toBe(2_000)
    expect(await one('convoy_loss')).toBe(last['loss'])
    expect(await query('convoy_cost')).toEqual({ 1000: last['cost1000'], 5000: last['cost5000'] })
    expect(await one('convoy_accuracy')).toBe(last['accuracy'])
    expect(await one('convoy_test_accuracy')).toBe(test['testAccuracy'])
    expect(await one('convoy_learning_rate')).toBe(last['learningRate'])
    expect(await one('convoy_images_per_second')).toBe(last['samples'] / last['seconds'])
    expect(await one('convoy_workers')).toBe(2)
    expect(await one('convoy_checkpoints_total')).toBe(events('checkpoint').length)

    expect(await one('convoy_step_seconds_total')).toBeCloseTo(sum('seconds'), 9)
    const phases = await query('convoy_step_phase_seconds_total')
    expect(Object.keys(phases).sort()).toEqual(['compute', 'update', 'wire'])
    expect(phases['compute']).toBeGreaterThan(0)
    expect(phases['compute']).toBeCloseTo(sum('computeSeconds'), 9)
    expect(phases['update']).toBeCloseTo(sum('updateSeconds'), 9)
    expect(phases['compute'] + phases['update'] + phases['wire']).toBeGreaterThan(0.999 * sum('seconds'))

    // As the dashboard of k8s/overlays/monitoring divides them.
    const each = await query(
      'convoy_step_phase_seconds_total / ignoring(phase) group_left convoy_steps_total',
    )
    expect(each['compute']).toBeCloseTo(phases['compute'] / steps.length, 9)

    // Each step sends the parameters to somebody and gets a gradient as large from somebody.
    const bytes = await query('convoy_wire_bytes_total')
    const least = 4 * (run.event('start')!['parameters'] as number) * steps.length
    expect(Object.keys(bytes).sort()).toEqual(['received', 'sent'])
    expect(bytes['received']).toBeGreaterThan(least)
    expect(bytes['sent']).toBeGreaterThan(least)
    // Every sample was taken from one worker; what came second is wasted.
    const samples = await query('convoy_worker_samples_total')
    expect(Object.keys(samples).every((worker) => ['one', 'two'].includes(worker))).toBe(true)
    expect(await one('sum(convoy_worker_samples_total)')).toBe(2_000)
    expect(await one('convoy_wasted_samples_total')).toBeGreaterThanOrEqual(0)
    expect(await query('convoy_refused_total')).toEqual({ E_TOKEN: 3 })

    const page = await (await fetch(`http://${target}/metrics`)).text()
    const lint = spawnSync(programs[1], ['check', 'metrics'], { input: page, encoding: 'utf8' })
    expect(`${lint.stdout}${lint.stderr}`).toBe('')
    expect(lint.status).toBe(0)

    // What the same events are written to for TensorBoard; see tensorboard.test.ts.
    const files = readdirSync(path.join(folder, 'scraped', 'tensorboard'))
    expect(files).toEqual([expect.stringMatching(/^events\.out\.tfevents\.\d+\./)])
  })
})
