import { connectAsync } from 'mqtt'
import { expect, it, onTestFinished } from 'vitest'
import { MqttSession } from '../../src/client/mqtt-session.js'
import { type MqttModuleOptions, MqttService } from '../../src/index.js'
import { resolveOptions } from '../../src/options/option-checks.js'
import { FaultLink } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'
import { RecordingLog } from '../support/recording-log.js'

const TOPICS = 100
const PAYLOAD_BYTES = 300
/** Topic and header as well. */
const MESSAGE_BYTES = PAYLOAD_BYTES + 20
const BYTES_PER_SECOND = 40_000
/** Of it, the link carries 5 %. */
const LOAD_PER_SECOND = (20 * BYTES_PER_SECOND) / MESSAGE_BYTES
const LOAD_MS = 5_000
const INTERVAL_MS = 10
const MAX_DELAY_MS = 1_000
/** Each topic once. */
const ROUND_MS = (1_000 * TOPICS * MESSAGE_BYTES) / BYTES_PER_SECOND

interface Delivered {
  readonly topic: string
  readonly value: number
  readonly ageMs: number
}

/** Another client, on a link of its own, that notes how old each value is when it arrives. */
async function subscriber(url: string) {
  const delivered: Delivered[] = []
  const client = await connectAsync(url)
  client.on('message', (topic, payload) => {
    const [value, writtenMs] = payload.toString().split(' ').map(Number)
    delivered.push({
      topic,
      value: value ?? Number.NaN,
      ageMs: performance.now() - (writtenMs ?? Number.NaN),
    })
  })
  onTestFinished(() => client.endAsync(true))
  await client.subscribeAsync('load/#')
  return delivered
}

async function publisher(options: MqttModuleOptions) {
  const session = new MqttSession(resolveOptions(options), new RecordingLog())
  await session.start()
  onTestFinished(() => session.close())
  return new MqttService(session)
}

/** Publishes on all topics in turn for `LOAD_MS`, and gives the last value of each. */
function load(mqtt: MqttService): Promise<Map<string, number>> {
  const last = new Map<string, number>()
  const startMs = performance.now()
  let published = 0
  return new Promise(resolve => {
    const timer = setInterval(() => {
      const elapsedMs = performance.now() - startMs
      for (; published < (Math.min(elapsedMs, LOAD_MS) * LOAD_PER_SECOND) / 1_000; published += 1) {
        const topic = `load/${published % TOPICS}`
        const payload = Buffer.from(`${published} ${performance.now()}`.padEnd(PAYLOAD_BYTES))
        expect(mqtt.tryPublish(topic, payload, { whenBlocked: 'latest' })).toEqual({ status: 'accepted' })
        last.set(topic, published)
      }
      if (elapsedMs < LOAD_MS) return
      clearInterval(timer)
      resolve(last)
    }, INTERVAL_MS)
  })
}

function expectFresh(delivered: readonly Delivered[]): void {
  const oldest = Math.max(...delivered.map(({ ageMs }) => ageMs))
  // One of the rounds is for the machine that runs this.
  expect(oldest).toBeLessThanOrEqual(MAX_DELAY_MS + 2 * ROUND_MS)
}

it('latest on a link that carries 5 % of the load: all values are recent, and the last ones arrive', async () => {
  const broker = await Mosquitto.start()
  onTestFinished(() => broker.stop())
  const link = await FaultLink.start({ port: broker.port })
  onTestFinished(() => link.stop())
  link.throttle(BYTES_PER_SECOND)
  const delivered = await subscriber(broker.url)
  const mqtt = await publisher({ url: link.url, outbound: { maxDelayMs: MAX_DELAY_MS } })

  const last = await load(mqtt)
  const duringLoad = delivered.length
  expectFresh(delivered)
  expect(last.size).toBe(TOPICS)
  const arrived = new Map<string, number>()
  await eventually(() => {
    for (const { topic, value } of delivered) arrived.set(topic, value)
    return [...last].every(([topic, value]) => arrived.get(topic) === value)
  })

  expectFresh(delivered)
  // The link was used, and it was the limit.
  expect(duringLoad).toBeGreaterThan((0.5 * LOAD_MS) / 1_000 / (MESSAGE_BYTES / BYTES_PER_SECOND))
  const { attempted, sent, dropped } = mqtt.stats().outbound
  expect(sent).toBe(delivered.length)
  expect(dropped.superseded).toBe(attempted - sent)
  expect(dropped.superseded).toBeGreaterThan(0.8 * attempted)
  // Every topic got its turn, and in order.
  for (const topic of last.keys()) {
    const values = delivered.flatMap(one => (one.topic === topic ? [one.value] : []))
    expect(values.length).toBeGreaterThan(2)
    expect(values).toEqual(values.toSorted((one, other) => one - other))
  }
})
