import { existsSync, mkdirSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import axe from 'axe-core'
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'

const output = path.join(path.dirname(fileURLToPath(import.meta.url)), 'output')

const usual = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
]

/** The installed Chromium: CONVOY_CHROMIUM, or where it usually is. */
export const chromiumPath = [process.env['CONVOY_CHROMIUM'], ...usual].find(
  (file) => file && existsSync(file),
)

/** What to write behind the name of tests that need it. */
export const unless = chromiumPath
  ? ''
  : ' (skipped: there is no Chromium; apt-get install chromium, or set CONVOY_CHROMIUM)'

/** Root has no sandbox, a machine of tests no GPU; and nothing goes out to anybody. */
export const flags = [
  ...['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
  ...['--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
]

export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: chromiumPath!, args: flags })
}

/** A page, and every error that its console showed. */
export async function openPage(
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<{ page: Page; errors: string[] }> {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(60_000)
  const errors: string[] = []
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') errors.push(message.text())
  })
  page.on('pageerror', (error) => errors.push(String(error)))
  await page.goto(url)
  return { page, errors }
}

/** Serious and critical findings of axe-core, as text. */
export async function findings(page: Page): Promise<string[]> {
  await page.evaluate(axe.source)
  const { violations } = await page.evaluate<{ violations: axe.Result[] }>('axe.run()')
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' ')}`)
}

/** Keeps a picture of the whole page, in light and dark, on a desk and on a phone. */
export async function pictures(page: Page, name: string): Promise<void> {
  mkdirSync(output, { recursive: true })
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme })
    for (const width of [1440, 390]) {
      await page.setViewportSize({ width, height: 900 })
      // Charts follow the page's width a frame later.
      await page.evaluate('new Promise((done) => setTimeout(done, 300))')
      await page.screenshot({
        path: path.join(output, `${name}-${colorScheme}-${width}.png`),
        fullPage: true,
      })
    }
  }
  await page.emulateMedia({ colorScheme: 'light' })
  await page.setViewportSize({ width: 1440, height: 900 })
}
