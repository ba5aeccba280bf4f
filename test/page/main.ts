import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { Browser, Page } from 'playwright-core'
import { WebSocket } from 'ws'
import { chromiumPath, launch, openPage } from '../browser/browser.ts'
import { oldRun } from '../browser/old-run.ts'
import { Convoy, scratch, type Line } from '../convoy.ts'
import { cpuSeconds, PlainBrowser } from './plain-browser.ts'

const { values } = parseArgs({
  options: {
    history: { type: 'string', default: '200000' },
    rounds: { type: 'string', default: '12' },
    seconds: { type: 'string', default: '8' },
    workers: { type: 'string', default: '2' },
    width: { type: 'string', default: '1' },
    data: { type: 'string', default: process.env['CONVOY_DATA'] || 'synthetic' },
    engine: { type: 'string', default: 'auto' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help || !chromiumPath) {
  console.log(`npm run bench:page -- [options]: what the page takes to load, and what it costs the training
  --history N    steps of the long run that is shown (200000)
  --rounds N     comparisons of the training's speed with and without pages (12)
  --seconds S    for which each side of a round is measured; CPU time is counted for three times as long (8)
  --only PART    loading, or cost
  --workers N    of one thread each (2)
  --width X      filters, as a multiple of the paper's (1)
  --data SOURCE  as for convoy train (CONVOY_DATA, or synthetic)
  --engine NAME  of the workers (auto)
  --json         one JSON object a line
It needs Chromium: /usr/bin/chromium, or CONVOY_CHROMIUM.`)
  process.exit(values.help ? 0 : 1)
}
const long = Number(values.history)
/** Loads of a page that a figure is the median of. */
const LOADS = 5
/** Pages that are open at once. */
const PAGES = 3
/** Milliseconds after a page was loaded until memory is measured. */
const SETTLING = 2_000
/** Milliseconds until all that a browser does for new pages by itself is over; it frees memory after some 25 s. */
const OPENING = 35_000
const MB = 1e6

type Side = 'none' | 'connections' | 'tabs' | 'windows'

const middle = (numbers: number[]) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1]
const say = (line: object) => values.json && console.log(JSON.stringify(line))
const steps = (convoy: Convoy): Line[] => convoy.lines.filter(({ event }) => event === 'step')
const { folder, remove } = scratch()
const settings = [
  ...['--data', values.data, '--limit-train', '2000', '--limit-test', '64', '--width', values.width],
  ...['--epochs', '100000', '--evaluate-every', '0', '--checkpoint-every', '3600', '--port', '0'],
  ...['--runs', folder, '--json'],
]

async function start(name: string): Promise<{ run: Convoy; url: string; dashboard: string }> {
  const run = new Convoy(['coordinator', ...settings, '--name', name])
  return { run, url: await run.address(), dashboard: await run.address('dashboard') }
}

/** Resident memory of a process in bytes. */
const resident = (pid: number) =>
  1024 * Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1])

/** Memory of a process that no other has, in bytes. */
function own(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  return [...text.matchAll(/^Private_(?:Clean|Dirty):\s+(\d+)/gm)].reduce(
    (sum, [, kB]) => sum + 1024 * Number(kB),
    0,
  )
}

/** The first frame in which an expression is true, in milliseconds since the navigation. */
const appears = (page: Page, expression: string) =>
  page.evaluate<number>(`new Promise((resolve) => {
    const look = (time) => (${expression} ? resolve(time) : requestAnimationFrame(look))
    requestAnimationFrame(look)
  })`)

/** The first load of the run that is trained: seconds to the first contentful paint, and bytes as they came. */
async function paint(browser: Browser, dashboard: string): Promise<{ seconds: number; bytes: number }> {
  const { page } = await openPage(browser, dashboard)
  await page.getByText('waiting for workers').waitFor()
  // Paints are told when they were shown.
  await appears(page, "performance.getEntriesByName('first-contentful-paint').length")
  const figures = await page.evaluate<{ seconds: number; bytes: number }>(`({
    seconds: performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000,
    bytes: [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
      .reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0),
  })`)
  await page.context().close()
  return figures
}

/** A load of the long run: seconds from navigation to its plot, and the page's memory then in bytes. */
async function plot(dashboard: string): Promise<{ seconds: number; heap: number; memory: number }> {
  // A browser of its own, whose one page has the one large renderer.
  const browser = await launch()
  try {
    const { page } = await openPage(browser, `${dashboard}#/run/long`)
    const plotted = `document.querySelector('[aria-label^="Cost, step 1 to ${long}."]')`
    const seconds = (await appears(page, plotted)) / 1000
    await sleep(SETTLING)
    const session = await page.context().newCDPSession(page)
    await session.send('HeapProfiler.collectGarbage')
    const { usedSize: heap } = await session.send('Runtime.getHeapUsage')
    const whole = await browser.newBrowserCDPSession()
    const { processInfo } = await whole.send('SystemInfo.getProcessInfo')
    const renderers = processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => own(id))
    return { seconds, heap, memory: Math.max(...renderers) }
  } finally {
    await browser.close()
  }
}

/** What it takes to load: the page, and a long run. */
async function loading() {
  oldRun(folder, 'long', long)
  const { run, dashboard } = await start('short')
  const browser = await launch()
  try {
    const paints = []
    for (let i = 0; i < LOADS; i++) paints.push(await paint(browser, dashboard))
    await sleep(SETTLING)
    const before = resident(run.child.pid!)
    // The first one has the coordinator read the run's file.
    const plots = []
    for (let i = 0; i <= LOADS; i++) plots.push(await plot(dashboard))
    await sleep(SETTLING)
    return {
      firstPaintSeconds: middle(paints.map(({ seconds }) => seconds)),
      firstPaintWorst: Math.max(...paints.map(({ seconds }) => seconds)),
      pageBytes: middle(paints.map(({ bytes }) => bytes)),
      firstPlotSeconds: middle(plots.slice(1).map(({ seconds }) => seconds)),
      firstPlotUnread: plots[0].seconds,
      pageHeapMB: middle(plots.map(({ heap }) => heap)) / MB,
      pageProcessMB: middle(plots.map(({ memory }) => memory)) / MB,
      coordinatorMoreMB: (resident(run.child.pid!) - before) / MB,
    }
  } finally {
    await browser.close()
    run.child.kill('SIGKILL')
    await run.ended
  }
}

/** Three of what costs something: connections that hear what a page would, tabs of which one is seen, windows. */
async function openThree(side: Side, url: string, dashboard: string, browser: PlainBrowser) {
  if (side === 'none') return () => Promise.resolve()
  if (side !== 'connections')
    return browser.open(
      dashboard,
      PAGES,
      side === 'windows',
      `!!document.querySelector('[aria-label^="Cost, step"]')`,
    )
  const sockets = Array.from({ length: PAGES }, () => {
    const socket = new WebSocket(`${url}/live`)
    socket.once('open', () => socket.send('{"kind":"hello"}'))
    return socket
  })
  return () => {
    for (const socket of sockets) socket.terminate()
    return Promise.resolve()
  }
}

/**
 * What open pages cost the training on the same cores: CPU time by side, and images/s by those without, in rounds in which
 * the browser of three windows is let go and stopped.
 */
async function cost() {
  const { run, url, dashboard } = await start('cost')
  const workers = Array.from(
    { length: Number(values.workers) },
    (_, i) =>
      new Convoy(['worker', '--coordinator', url, '--engine', values.engine, '--worker-name', `w${i}`]),
  )
  const browser = new PlainBrowser()
  const seconds = Number(values.seconds)
  const speed = async (): Promise<number> => {
    const from = steps(run).length + 1
    await run.until(() => steps(run).length >= from)
    await sleep(1000 * seconds)
    const taken = steps(run).slice(from)
    const sum = (key: string) => taken.reduce((total, step) => total + Number(step[key]), 0)
    return sum('samples') / sum('seconds')
  }
  /** CPU milliseconds a second, of the browser and of the coordinator. */
  const account = async () => {
    const [time, chromium, coordinator] = [performance.now(), browser.cpuSeconds, cpuSeconds(run.child.pid!)]
    await sleep(3000 * seconds)
    const share = (used: number) => (1e6 * used) / (performance.now() - time)
    return {
      browser: share(browser.cpuSeconds - chromium),
      coordinator: share(cpuSeconds(run.child.pid!) - coordinator),
    }
  }
  try {
    await run.until(() => steps(run).length >= 10)
    const cpu = {} as Record<Side, Awaited<ReturnType<typeof account>>>
    const rounds: { stopped: number; windows: number }[] = []
    for (const side of ['none', 'connections', 'tabs', 'windows'] as const) {
      const close = await openThree(side, url, dashboard, browser)
      if (side !== 'connections') await sleep(OPENING)
      cpu[side] = await account()
      say({ event: 'cpu', side, ...cpu[side] })
      for (let i = 0; side === 'windows' && i < Number(values.rounds); i++) {
        const round = { stopped: 0, windows: 0 }
        // Each is first in its turn.
        for (const still of i % 2 === 0 ? [true, false] : [false, true]) {
          browser.freeze(still)
          round[still ? 'stopped' : 'windows'] = await speed()
        }
        rounds.push(round)
        say({ event: 'round', imagesPerSecond: round })
      }
      browser.freeze(false)
      await close()
    }
    const ratios = rounds.map(({ windows, stopped }) => windows / stopped).sort((a, b) => a - b)
    return {
      imagesPerSecond: middle(rounds.map(({ stopped }) => stopped)),
      cpuMsPerSecond: cpu,
      windowsVsStopped: middle(ratios),
      quartiles: [0.25, 0.75].map((at) => ratios[Math.floor(at * (ratios.length - 1))]),
    }
  } finally {
    await browser.close()
    for (const convoy of [...workers, run]) {
      convoy.child.kill('SIGKILL')
      await convoy.ended
    }
  }
}

try {
  const loaded = values.only === 'cost' ? undefined : await loading()
  const trained = values.only === 'loading' ? undefined : await cost()
  if (values.json)
    say({ event: 'summary', history: long, rounds: Number(values.rounds), ...loaded, ...trained })
  const fixed = (value: number, digits = 2) => value.toFixed(digits)
  if (loaded && !values.json)
    console.log(`first paint: ${fixed(loaded.firstPaintSeconds, 3)} s (worst of ${LOADS}: ${fixed(loaded.firstPaintWorst, 3)} s)
the page: ${fixed(loaded.pageBytes / 1000, 1)} kB as they came, compressed
${long} steps: plotted after ${fixed(loaded.firstPlotSeconds)} s, ${fixed(loaded.firstPlotUnread)} s when the file was not read yet
memory then: page ${fixed(loaded.pageHeapMB, 1)} MB of JavaScript, ${fixed(loaded.pageProcessMB, 0)} MB the whole process of its own; coordinator ${fixed(loaded.coordinatorMoreMB, 1)} MB more`)
  if (trained && !values.json) {
    for (const [side, { browser, coordinator }] of Object.entries(trained.cpuMsPerSecond))
      console.log(
        `${side}: ${fixed(browser, 1)} ms of CPU time a second in the browser, ${fixed(coordinator, 1)} in the coordinator`,
      )
    const [low, high] = trained.quartiles.map((value) => fixed(value, 3))
    console.log(
      `training: ${fixed(trained.imagesPerSecond, 1)} images/s; ${fixed(trained.windowsVsStopped, 3)} of it (${low} to ${high}) with ${PAGES} windows on the same cores`,
    )
  }
} finally {
  remove()
}
