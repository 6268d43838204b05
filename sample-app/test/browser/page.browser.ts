import { afterAll, beforeAll, expect, it } from 'vitest'
import { Sample } from '../sample.js'
import { DemoPage } from './demo-page.js'

const { CHROMIUM = '' } = process.env
const DROP = 0
const LATEST = 1
const MQTT = 2
/** Seconds. `drop` drops after one second; a reading takes 0.3 s at 5 KB/s, and the next one is as far away. */
const FRESH_S = 3

let sample: Sample
let demo: DemoPage

beforeAll(async () => {
  sample = await Sample.start()
  demo = await DemoPage.open(sample.url, CHROMIUM)
})

afterAll(async () => {
  await demo?.close()
  await sample?.interrupt()
  sample?.kill()
})

it('shows twelve trucks with their temperatures', async () => {
  const trucks = demo.page.locator('.truck', { hasText: /−\d+\.\d °C/ }).filter({ hasText: 'online' })
  await expect.poll(() => trucks.count(), { timeout: 20_000 }).toBe(12)
})

it('draws the curves, which are flat on a free link', async () => {
  const { ages } = await demo.until(({ points, ages }) => points > 10 && Math.max(...ages) < 1)
  expect(ages).toHaveLength(3)
  expect(await demo.colouredPixels('#age-chart')).toBeGreaterThan(50)
  await demo.screenshots('free')
})

it('parts the three curves when the links are throttled', async () => {
  await demo.page.getByLabel('Throttle to').fill('5')
  await demo.click('Throttle')
  await demo.shows('The three links carry 5 KB/s each.')
  const { ages, drops } = await demo.until(({ ages }) => (ages[MQTT] ?? 0) > 6)
  expect(ages[DROP]).toBeLessThan(FRESH_S)
  expect(ages[LATEST]).toBeLessThan(FRESH_S)
  expect(drops[DROP]).toBeGreaterThan(0)
  expect(drops[LATEST]).toBeGreaterThan(0)
  expect(drops[MQTT]).toBe(0)
  await demo.shows(
    'Nothing is dropped, so every reading waits behind all earlier ones and arrives later than the last.',
  )
  await demo.screenshots('throttled')
})

it('heals: the newest readings are fresh again', async () => {
  await demo.click('Heal')
  await demo.until(({ ages }) => Math.max(...ages) < 1)
})

it('ages every curve while the links are stalled', async () => {
  await demo.click('Stall')
  await demo.until(({ ages }) => Math.min(...ages) > 2)
  await demo.screenshots('stalled')
  await demo.click('Heal')
  await demo.until(({ ages }) => Math.max(...ages) < 1)
})

it('ages every curve while the links are cut, and all trucks come back', async () => {
  await demo.click('Cut')
  await demo.until(({ ages }) => Math.min(...ages) > 2)
  await demo.screenshots('cut')
  await demo.click('Heal')
  await demo.until(({ ages }) => Math.max(...ages) < 1)
})

it('comes back after a restart of the broker', async () => {
  await demo.click('Restart broker')
  await demo.shows('The broker is back, and the service has its subscriptions again.')
  await demo.until(({ ages }) => Math.max(...ages) < 1)
  await demo.shows('The service is connected')
})

it('kills a truck, which goes offline and comes back', async () => {
  const truck = demo.page.locator('.truck').filter({ has: demo.page.getByText('truck-4', { exact: true }) })
  await demo.click('Kill truck-4')
  await truck.getByText('offline').waitFor()
  await demo.screenshots('killed')
  await truck.getByText('online').waitFor()
})

it('keeps recording alarms between garbage', async () => {
  const recorded = async () => Number(await demo.page.locator('#alarms-total').textContent())
  const dead = async () => Number(await demo.page.locator('#alarms-dead').textContent())
  await demo.click('Send garbage')
  await expect.poll(dead, { timeout: 20_000 }).toBeGreaterThan(0)
  const before = await recorded()
  await expect.poll(recorded, { timeout: 20_000 }).toBeGreaterThan(before)
  await demo.screenshots('garbage')
  await demo.shows(/The garbage has ended: \d+ messages, \d+ a second\./, 60_000)
  // On a busy machine, the broker still has some of it.
  await demo.until(({ ages }) => Math.max(...ages) < 1, 60_000)
}, 120_000)

it('sends a command to a truck, and shows its response', async () => {
  await demo.click('Lower the set point of truck-5')
  await demo.shows('truck-5 responded: its set point is -19 °C.')
})

it('can be used with the keyboard', async () => {
  await demo.page.getByLabel('Throttle to').focus()
  for (const key of ['Tab', 'Tab', 'Enter']) await demo.page.keyboard.press(key)
  await demo.shows('The three links carry nothing; the connections stay open.')
  await demo.click('Heal')
})

it('throttles by itself if nobody clicks for 20 seconds', async () => {
  await demo.page.reload()
  await demo.shows(/If you click nothing, the links are throttled to 5 KB\/s in \d+ s\./)
  await demo.page.clock.fastForward(21_000)
  await demo.shows('Nobody clicked for 20 s')
  await demo.shows('The three links carry 5 KB/s each.')
})

it('loads nothing from other hosts, and the browser complains about nothing', () => {
  expect(demo.foreign).toEqual([])
  expect(demo.complaints).toEqual([])
})
