import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Convoy, freePort, scratch } from '../convoy.ts'
import { chromiumPath, findings, launch, openPage, pictures, unless } from './browser.ts'
import { oldRun } from './old-run.ts'

const { folder, remove } = scratch()
afterAll(remove)
const images = process.env['CONVOY_DATA']
const settings = [
  ...['--data', images ?? 'synthetic', '--limit-train', '2000', '--limit-test', '200', '--width', '0.125'],
  ...['--epochs', '1000', '--batch-size', '50', '--learning-rate', '0.02', '--runs', folder],
]

const figure = (page: Page, key: string) => page.locator(`[data-figure=${key}]`)
const workerState = (page: Page, name: string) => page.locator(`[data-worker=${name}] .state`)

/** The last step that the chart of the cost shows. */
async function lastStep(page: Page): Promise<number> {
  const label = await page.getByRole('img', { name: /^Cost, step/ }).getAttribute('aria-label')
  return Number(/to (\d+)\./.exec(label ?? '')?.[1])
}

async function until(page: Page, ready: () => Promise<boolean>): Promise<void> {
  while (!(await ready())) await page.waitForTimeout(100)
}

describe.skipIf(!chromiumPath)(`the dashboard${unless}`, () => {
  let browser: Browser
  let coordinator: Convoy
  let url: string
  let port: string
  const workers = new Map<string, Convoy>()
  const startCoordinator = async (name = 'live', ...more: string[]) => {
    coordinator = new Convoy([
      ...['coordinator', ...settings, '--name', name, '--port', port, '--json'],
      ...more,
    ])
    url = await coordinator.address('dashboard')
  }
  const startWorker = (name: string) =>
    workers.set(
      name,
      new Convoy(['worker', '--coordinator', `ws://127.0.0.1:${port}`, '--worker-name', name]),
    )

  beforeAll(async () => {
    oldRun(folder, 'older', 2_000)
    const sizes = [
      { from: 0, size: 16 },
      { from: 200, size: 32 },
    ]
    oldRun(folder, 'sized', 400, { sizes })
    port = String(await freePort())
    browser = await launch()
    await startCoordinator()
    startWorker('one')
    startWorker('two')
  })
  afterAll(async () => {
    await browser?.close()
    for (const convoy of [...workers.values(), coordinator]) {
      convoy?.child.kill('SIGKILL')
      await convoy?.ended
    }
  })

  it('shows a real run: its curve grows, a killed worker is lost, a new one comes, and a new coordinator is found', async () => {
    const { page, errors } = await openPage(browser, url)
    await until(page, async () => (await lastStep(page)) > 20)
    const before = await lastStep(page)
    await until(page, async () => (await lastStep(page)) > before + 20)
    expect(await page.getByRole('heading', { level: 1 }).textContent()).toBe('live')
    expect(Number(await figure(page, 'cost1000').textContent())).toBeGreaterThan(0)
    await until(page, async () => (await workerState(page, 'one').textContent()) === 'ready')

    workers.get('one')!.child.kill('SIGKILL')
    await until(page, async () => (await workerState(page, 'one').textContent()) === 'lost')
    await page.getByText('one is lost: connection closed.').first().waitFor()
    startWorker('three')
    await until(page, async () => (await workerState(page, 'three').textContent()) === 'ready')
    await until(page, async () => /%/.test((await figure(page, 'testAccuracy').textContent())!))
    expect(errors).toEqual([])

    expect(await findings(page)).toEqual([])
    await page.emulateMedia({ colorScheme: 'dark' })
    expect(await findings(page)).toEqual([])
    await pictures(page, 'training')
    await page.setViewportSize({ width: 360, height: 700 })
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360)
    await page.setViewportSize({ width: 1440, height: 900 })

    const reached = await lastStep(page)
    coordinator.child.kill('SIGKILL')
    await coordinator.ended
    await page.getByText('The coordinator does not answer').waitFor()
    expect(await findings(page)).toEqual([])
    await pictures(page, 'gone')
    await startCoordinator()
    await until(page, async () => (await page.locator('#link').textContent()) === 'live')
    await until(page, async () => (await lastStep(page)) > reached)
    const label = await page.getByRole('img', { name: /^Cost, step/ }).getAttribute('aria-label')
    expect(label).toMatch(/^Cost, step [0-3] to/)
    // While there was no coordinator, the browser itself says so.
    expect(errors.filter((error) => !/ERR_CONNECTION_REFUSED|WebSocket connection/.test(error))).toEqual([])
  })

  it('gives the newest weights', async () => {
    const { page } = await openPage(browser, url)
    const link = page.getByRole('link', { name: /Download weights/ })
    await link.waitFor()
    const [download] = await Promise.all([page.waitForEvent('download'), link.click()])
    expect(download.suggestedFilename()).toMatch(/^live-step-\d+\.convoy$/)
    expect(await download.failure()).toBeNull()
  })

  it('compares runs, and shows one of before with its verdict', async () => {
    const { page, errors } = await openPage(browser, `${url}#/runs`)
    await page.getByRole('checkbox', { name: 'Compare older' }).check()
    await page.getByRole('img', { name: /^Cost, epoch .*older: from 2\.\d+ to 0\.\d+/ }).waitFor()
    expect(await findings(page)).toEqual([])
    await pictures(page, 'runs')

    await page.getByRole('link', { name: 'older' }).click()
    await page.getByRole('heading', { level: 1, name: 'older' }).waitFor()
    expect(await page.getByRole('region', { name: 'Verdict' }).textContent()).toMatch(
      /^converged.*flat since 60 windows.*since step 1,800/,
    )
    expect(await page.getByRole('img', { name: /^Accuracy/ }).getAttribute('aria-label')).toMatch(
      /step 1 to 2000\. .*test: from 18\.0\s% to 80\.\d\s%/,
    )
    await pictures(page, 'older')
    expect(errors).toEqual([])
  })

  it('shows the size of the images of a run that has several, and no empty chart for others', async () => {
    const { page, errors } = await openPage(browser, `${url}#/run/sized`)
    const size = page.getByRole('img', { name: /^Image size, step 1 to 400\. pixels: from 16\spx to 32\spx/ })
    await size.waitFor()
    await size.focus()
    await page.keyboard.press('Home')
    await page
      .locator('[aria-live=polite]')
      .filter({ hasText: /^step 1: pixels 16\spx$/ })
      .waitFor({ state: 'attached' })
    expect(await findings(page)).toEqual([])
    await pictures(page, 'sized')
    await page.goto(`${url}#/run/older`)
    await page.getByRole('img', { name: /^Cost, step 1 to 2000/ }).waitFor()
    expect(await page.getByRole('heading', { name: 'Image size' }).isVisible()).toBe(false)
    await page.getByRole('button', { name: 'System theme' }).press('Enter')
    expect(errors).toEqual([])
  })

  it('is used by keyboard: theme, views, and the values of a chart', async () => {
    const { page, errors } = await openPage(browser, `${url}#/run/older`)
    const plot = page.getByRole('img', { name: /^Cost, step 1 to 2000/ })
    await plot.focus()
    await page.keyboard.press('Home')
    expect(
      await page
        .locator('[aria-live=polite]')
        .filter({ hasText: /^step 1: 1,000 samples 2\./ })
        .count(),
    ).toBe(1)
    await page.keyboard.press('ArrowRight')
    expect(
      await page
        .locator('[aria-live=polite]')
        .filter({ hasText: /^step 1: / })
        .count(),
    ).toBe(0)
    await page.getByRole('button', { name: 'System theme' }).press('Enter')
    await page.getByRole('button', { name: 'Light theme' }).press('Enter')
    expect(await page.locator('html').getAttribute('data-theme')).toBe('dark')
    await page.getByRole('link', { name: 'Runs' }).press('Enter')
    await page.getByRole('heading', { level: 1, name: 'Runs' }).waitFor()
    expect(errors).toEqual([])
  })

  it('shows a drawn stretch of a run in finer steps', async () => {
    const { page } = await openPage(browser, `${url}#/run/older`)
    const plot = page.getByRole('img', { name: /^Cost, step 1 to 2000/ })
    await plot.scrollIntoViewIfNeeded()
    const box = (await plot.locator('.u-over').boundingBox())!
    await page.mouse.move(box.x + 0.5 * box.width, box.y + 50)
    await page.mouse.down()
    await page.mouse.move(box.x + 0.6 * box.width, box.y + 60, { steps: 4 })
    await page.mouse.up()
    await page.getByRole('img', { name: /^Cost, step (99\d|100\d) to (119\d|120\d)\./ }).waitFor()
  })

  it('says so when the run is over', async () => {
    const run = new Convoy([
      ...['coordinator', ...settings, '--name', 'short', '--port', '0', '--steps', '12', '--json'],
    ])
    const { page } = await openPage(browser, await run.address('dashboard'))
    await page.getByText('waiting for workers').waitFor()
    workers.set('short', new Convoy(['worker', '--coordinator', await run.address()]))
    await page.getByText('The run is over and its coordinator has ended').waitFor()
    expect(await page.locator('.phase').textContent()).toBe('finished')
    expect(await lastStep(page)).toBe(12)
    await pictures(page, 'finished')
    expect(await page.getByText('The run is finished.').count()).toBe(1)
    expect(await run.done()).toMatchObject({ finished: true, step: 12 })
  })

  it('asks for the token beyond loopback', async () => {
    const guarded = new Convoy([
      ...['coordinator', ...settings, '--name', 'guarded', '--port', '0', '--json'],
      ...['--host', '0.0.0.0', '--token', 'a-secret-token'],
    ])
    try {
      const url = await guarded.address()
      const address = `http://127.0.0.1:${new URL(url).port}/`
      const { page, errors } = await openPage(browser, address)
      const field = page.getByLabel("The coordinator's --token")
      await field.fill('not-the-token')
      await field.press('Enter')
      await page.getByText('The token is wrong.').waitFor()
      expect(await findings(page)).toEqual([])
      await pictures(page, 'token')
      await field.fill('a-secret-token')
      await field.press('Enter')
      await page.getByRole('heading', { level: 1, name: 'guarded' }).waitFor()
      expect(errors).toEqual([])
      expect((await fetch(`${address}weights`)).status).toBe(401)
    } finally {
      guarded.child.kill('SIGKILL')
      await guarded.ended
    }
  })

  it(
    'shows the verdict change when the rate is raised a hundredfold, without being loaded again',
    { timeout: 240_000 },
    async () => {
      const { page, errors } = await openPage(browser, url)
      await page.evaluate('document.body.dataset.loaded = "once"')
      const verdict = page.getByRole('region', { name: 'Verdict' })
      await until(page, async () => /falling/.test((await verdict.textContent()) ?? ''))

      // As a person would: stop, and go on from its weights at the other rate.
      for (const { child } of workers.values()) child.kill('SIGKILL')
      coordinator.child.kill('SIGTERM')
      expect(await coordinator.ended).toBe(0)
      const saved = coordinator.lines.filter(({ event }) => event === 'checkpoint').at(-1)!
      await startCoordinator('hot', '--init', saved['path'] as string, '--learning-rate', '2')
      await page.getByRole('heading', { level: 1, name: 'hot' }).waitFor()
      // A few updates are enough, so that workers come once the page is back.
      startWorker('four')
      const said = await coordinator.until((run) => run.event('verdict'))
      expect(said).toMatchObject({ verdict: 'diverging' })
      await verdict.getByText(said['reason'] as string).waitFor()
      expect(await verdict.textContent()).toMatch(/^diverging.*lower the rate.*since step/)
      await page.getByText('The run is over and its coordinator has ended').waitFor()
      expect(await page.locator('.phase').textContent()).toBe('diverged')
      expect(await workerState(page, 'four').count()).toBe(1)
      expect(await page.locator('body').getAttribute('data-loaded')).toBe('once')
      expect(errors.filter((error) => !/ERR_CONNECTION_REFUSED|WebSocket connection/.test(error))).toEqual([])
      expect(await findings(page)).toEqual([])
      await pictures(page, 'diverging')
    },
  )
})
