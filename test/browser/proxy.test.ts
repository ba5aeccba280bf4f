import type { Browser } from 'playwright-core'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { scratch } from '../convoy.ts'
import { Proxy, smallCoordinator } from '../proxy.ts'
import { chromiumPath, launch, openPage, unless } from './browser.ts'

const { folder, remove } = scratch()
afterAll(remove)
const closing: (() => void)[] = []

/** A coordinator without workers, behind a proxy; gives the page's address. */
async function behind(options: ConstructorParameters<typeof Proxy>[1], ...more: string[]): Promise<string> {
  const { run, port } = await smallCoordinator('--runs', folder, ...more)
  closing.push(() => run.child.kill('SIGKILL'))
  const proxy = new Proxy(port, options)
  closing.push(() => proxy.close())
  return `http://127.0.0.1:${await proxy.listen()}${options?.prefix ?? ''}/`
}

describe.skipIf(!chromiumPath)(`the page behind a proxy${unless}`, () => {
  let browser: Browser
  beforeAll(async () => {
    browser = await launch()
  })
  afterAll(async () => {
    await browser?.close()
    closing.forEach((close) => close())
  })

  it('lives below a path, as all that it asks for, though it is idle', async () => {
    const url = await behind(
      { prefix: '/a/convoy', idle: 10_000 },
      '--name',
      'below',
      '--token',
      'a-secret-token',
    )
    const { page, errors } = await openPage(browser, url)
    await page.getByLabel("The coordinator's --token").fill('a-secret-token\t')
    await page.getByRole('button', { name: 'Show the run' }).click()
    await page.locator('#link', { hasText: 'live' }).waitFor()
    await page.getByRole('link', { name: 'Explore' }).click()
    const image = {
      name: 'dot.png',
      mimeType: 'image/png',
      buffer: await sharp({ create: { width: 8, height: 8, channels: 3, background: 'red' } })
        .png()
        .toBuffer(),
    }
    const decoded = page.waitForResponse(/\/a\/convoy\/image\?/)
    await page.locator('input[type=file]').setInputFiles(image)
    expect((await decoded).status()).toBe(200)
    // A broken connection would show on the page at once.
    await page.evaluate(`new Promise((done) => {
      const seen = new MutationObserver(() => done())
      seen.observe(document.getElementById('link'), { attributes: true })
      setTimeout(done, 12_000)
    })`)
    expect(await page.locator('#link').textContent()).toBe('live')
    expect(errors).toEqual([])
  })

  it('says that its address must end with a slash where it cannot find its files', async () => {
    const url = await behind({ prefix: '/convoy' }, '--name', 'slash')
    const { page } = await openPage(browser, url.slice(0, -1))
    await page.getByText('its address must end with a slash').waitFor()
  })

  it.each([
    [
      'the proxy passes no WebSockets on',
      { plainOnly: true },
      ['--token', 'a-secret-token'],
      /does not pass WebSockets on/,
    ],
    ['there is no token', {}, [], /start the coordinator with --token/],
  ])('says why there is no connection where %s', async (name, options, more, reason) => {
    const url = await behind(options, '--name', name.replaceAll(' ', '-'), ...more)
    const { page } = await openPage(browser, url)
    await page.locator('#banner', { hasText: reason }).waitFor()
  })
})
