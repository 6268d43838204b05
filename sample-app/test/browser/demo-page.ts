/// <reference lib="dom" />
import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type Browser, chromium, type Page } from 'playwright-core'

const SCREENSHOTS = fileURLToPath(new URL('screenshots', import.meta.url))
const SIZES = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } }
const SCHEMES = ['light', 'dark'] as const

/** The last values that the page has drawn, in the order drop, latest, mqtt. */
export interface Drawn {
  readonly points: number
  readonly ages: readonly number[]
  readonly drops: readonly number[]
}

/** The page of the demo in a browser. It collects everything that the browser complains about. */
export class DemoPage {
  readonly complaints: string[] = []
  /** Addresses of requests to other hosts. */
  readonly foreign: string[] = []

  private constructor(
    private readonly browser: Browser,
    readonly page: Page,
    url: string,
  ) {
    page.on('console', message => {
      if (['error', 'warning'].includes(message.type())) this.complaints.push(message.text())
    })
    page.on('pageerror', error => this.complaints.push(error.message))
    page.on('request', request => {
      if (!request.url().startsWith(url) && !request.url().startsWith('data:'))
        this.foreign.push(request.url())
    })
  }

  static async open(url: string, executablePath: string): Promise<DemoPage> {
    const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
    const page = await browser.newPage({ viewport: SIZES.desktop, colorScheme: 'light' })
    page.setDefaultTimeout(20_000)
    const demo = new DemoPage(browser, page, url)
    await page.clock.install()
    await page.goto(url)
    return demo
  }

  async close(): Promise<void> {
    await this.browser.close()
  }

  click(name: string): Promise<void> {
    return this.page.getByRole('button', { name, exact: true }).click()
  }

  /** Waits until the page shows a text. */
  shows(text: string | RegExp, withinMs = 20_000): Promise<void> {
    return this.page.getByText(text).first().waitFor({ timeout: withinMs })
  }

  /** Reads the numbers behind the curves. */
  drawn(): Promise<Drawn> {
    return this.page.evaluate(() => {
      const { ages, drops } = Reflect.get(globalThis, 'demo').charts
      const last = (list: number[]) => list.at(-1) ?? 0
      return { points: ages[0].length, ages: ages.slice(1).map(last), drops: drops.slice(1).map(last) }
    })
  }

  /** Waits until the numbers behind the curves are as expected. Returns them. */
  async until(isExpected: (drawn: Drawn) => boolean, withinMs = 20_000): Promise<Drawn> {
    const deadline = Date.now() + withinMs
    for (;;) {
      const drawn = await this.drawn()
      if (isExpected(drawn)) return drawn
      if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms; drawn: ${JSON.stringify(drawn)}`)
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  }

  /** Number of pixels of a chart that have a colour of their own, and not the grey of axes and grid. */
  colouredPixels(selector: string): Promise<number> {
    return this.page.locator(`${selector} canvas`).evaluate(canvas => {
      if (!(canvas instanceof HTMLCanvasElement)) return 0
      const { data } = canvas.getContext('2d')?.getImageData(0, 0, canvas.width, canvas.height) ?? {
        data: [],
      }
      let coloured = 0
      for (let at = 0; at < data.length; at += 4) {
        const [red = 0, green = 0, blue = 0, alpha = 0] = data.slice(at, at + 4)
        if (alpha > 128 && Math.max(red, green, blue) - Math.min(red, green, blue) > 80) coloured += 1
      }
      return coloured
    })
  }

  /** Saves the page in both widths and both colour schemes. */
  async screenshots(state: string): Promise<void> {
    mkdirSync(SCREENSHOTS, { recursive: true })
    for (const [size, viewport] of Object.entries(SIZES))
      for (const colorScheme of SCHEMES) {
        await this.page.setViewportSize(viewport)
        await this.page.emulateMedia({ colorScheme })
        await this.page.evaluate(
          () => new Promise(resolve => requestAnimationFrame(() => resolve(undefined))),
        )
        await this.page.screenshot({
          path: `${SCREENSHOTS}/${state}-${size}-${colorScheme}.png`,
          fullPage: true,
        })
      }
    await this.page.setViewportSize(SIZES.desktop)
    await this.page.emulateMedia({ colorScheme: 'light' })
  }
}
