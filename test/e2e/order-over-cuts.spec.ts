import 'reflect-metadata'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Controller, Inject } from '@nestjs/common'
import { Ctx, EventPattern, Payload, Transport } from '@nestjs/microservices'
import { connectAsync } from 'mqtt'
import { expect, it } from 'vitest'
import { deadLetter, handle, type MqttContext, MqttService } from '../../src/index.js'
import { CuttableLink } from '../support/cuttable-link.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'
import { startMicroservice } from '../support/nest-app.js'
import { SeededRandom } from '../support/seeded-random.js'

/** A longer run: INBOUND_MESSAGES=100000 INBOUND_CUTS=200, or `npm run soak:specs`. */
const MESSAGES = Number(process.env['INBOUND_MESSAGES'] ?? 5_000)
const CUTS = Number(process.env['INBOUND_CUTS'] ?? 20)
/** The publisher is so many messages ahead of the handlers. */
const AHEAD = 5_000
const TOPICS = 50
/** Another run: CUTS_SEED=… */
const SEED = Number(process.env['CUTS_SEED'] ?? 20_261_121)
/** Turns of the event loop that the longest handler takes: handlers end in another order than they begin. */
const LONGEST_WORK = 500
const TIMEOUT_MS = 20_000 + 20 * MESSAGES

/** What the handlers saw, by topic, in the order in which they began. */
class Ledger {
  readonly began = new Map<string, Set<number>>()
  readonly lettered = new Set<number>()
  readonly handled = new Set<number>()
  runs = 0

  begin(topic: string, item: number): void {
    this.runs += 1
    const items = this.began.get(topic) ?? new Set()
    this.began.set(topic, items)
    items.add(item)
  }
}

function workController(ledger: Ledger, random: SeededRandom) {
  @Controller()
  class WorkController {
    constructor(@Inject(MqttService) private readonly mqtt: MqttService) {}

    @EventPattern<string>(
      'cuts/+',
      Transport.MQTT,
      handle({ concurrency: 32, onFailure: deadLetter('letters') }),
    )
    async onItem(@Payload() item: number, @Ctx() context: MqttContext): Promise<void> {
      ledger.begin(context.topic, item)
      for (let left = random.below(LONGEST_WORK + 1); left > 0; left -= 1) await nextTurn()
      if (random.chance(0.03)) throw new Error('this one fails')
      if (random.chance(0.1)) await this.mqtt.publish('done', item, { qos: 1, whenBlocked: 'drop' })
      ledger.handled.add(item)
    }
  }
  return WorkController
}

it(
  `${MESSAGES} messages on ${TOPICS} topics with ${CUTS} cuts: each is handled or becomes a dead letter, in the order of its topic`,
  async () => {
    const random = new SeededRandom(SEED)
    const broker = await Mosquitto.start({ config: ['max_queued_messages 0', 'max_inflight_messages 0'] })
    const link = new CuttableLink(broker.port)
    const ledger = new Ledger()
    const { app, mqtt } = await startMicroservice(
      {
        createStream: link.createStream,
        clean: false,
        clientId: 'cuts',
        inbound: { concurrency: 32 },
        reconnect: { delayMs: [10] },
      },
      { controllers: [workController(ledger, random)] },
    )
    const client = await connectAsync(broker.url)
    client.on('message', (_topic, payload) => ledger.lettered.add(Number(payload)))
    await client.subscribeAsync('letters', { qos: 1 })
    const published: Promise<unknown>[] = []
    const publishTo = (end: number): void => {
      for (let item = published.length; item < Math.min(end, MESSAGES); item += 1)
        published.push(client.publishAsync(`cuts/${item % TOPICS}`, String(item), { qos: 1 }))
    }
    const done = () => ledger.handled.size + ledger.lettered.size
    for (let cut = 1; cut <= CUTS; cut += 1) {
      const least = (cut * MESSAGES) / (CUTS + 1) - random.below(50)
      publishTo(least + AHEAD)
      await eventually(() => done() >= least)
      link.cut()
    }
    publishTo(MESSAGES)
    await Promise.all(published)
    const unaccounted = (): number[] =>
      Array.from(published.keys()).filter(item => !ledger.handled.has(item) && !ledger.lettered.has(item))
    // A look at every turn would take the time of the handlers.
    while (unaccounted().length > 0) {
      const before = done()
      await eventually(() => done() > before)
    }
    await eventually(() => mqtt.stats().inbound.running === 0 && mqtt.stats().inbound.waiting === 0)

    expect(mqtt.stats().connection.losses).toBe(CUTS)
    for (const [topic, items] of ledger.began) {
      const inOrder = [...items].toSorted((a, b) => a - b)
      expect([...items], `seed ${SEED}: the first handling on ${topic}`).toEqual(inOrder)
    }
    const { received, handled, deadLettered, dropped, givenBack, repeated, duplicates } = mqtt.stats().inbound
    expect(received).toBe(handled + deadLettered + dropped + givenBack + repeated + duplicates)
    expect(ledger.runs).toBeGreaterThanOrEqual(MESSAGES)
    await app.close()
    await client.endAsync(true)
    await broker.stop()
  },
  TIMEOUT_MS,
)
