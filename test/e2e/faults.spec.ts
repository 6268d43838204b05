import 'reflect-metadata'
import { Controller, Inject } from '@nestjs/common'
import { EventPattern, Payload } from '@nestjs/microservices'
import { connectAsync, type MqttClient } from 'mqtt'
import { describe, expect, it } from 'vitest'
import { type MqttModuleOptions, MqttService, type PublishOutcome } from '../../src/index.js'
import { CuttableLink } from '../support/cuttable-link.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'
import { startMicroservice } from '../support/nest-app.js'

/** What the handlers saw, and what became of the publishes that they made. */
class Ledger {
  readonly handled = new Set<number>()
  readonly outcomes: PublishOutcome[] = []
  attempted = 0
}

function ledgerController(ledger: Ledger) {
  @Controller()
  class LedgerController {
    constructor(@Inject(MqttService) private readonly mqtt: MqttService) {}

    @EventPattern<string>('work/+/item')
    async onItem(@Payload() item: number): Promise<void> {
      ledger.attempted += 1
      ledger.outcomes.push(await this.mqtt.publish('done', item, { qos: 1 }))
      ledger.handled.add(item)
    }

    @EventPattern<string>('other/#')
    onOther(): void {}
  }
  return LedgerController
}

/** Another client that publishes 100 numbered messages a second at QoS 1, and knows which ones were acknowledged. */
class Producer {
  readonly acknowledged: number[] = []
  private next = 0
  private timer: NodeJS.Timeout | undefined
  private waiters: { readonly count: number; readonly wake: () => void }[] = []

  private constructor(private readonly client: MqttClient) {}

  static async start(url: string): Promise<Producer> {
    const producer = new Producer(
      await connectAsync(url, { reconnectPeriod: 20, clientId: 'producer', clean: false }),
    )
    producer.timer = setInterval(() => producer.send(), 10)
    return producer
  }

  /** Resolves when so many more messages were acknowledged. */
  more(count: number): Promise<void> {
    return new Promise(wake => this.waiters.push({ count: this.acknowledged.length + count, wake }))
  }

  async stop(): Promise<void> {
    clearInterval(this.timer)
    await this.client.endAsync(true)
  }

  private send(): void {
    const item = this.next++
    this.client.publish(`work/${item % 10}/item`, String(item), { qos: 1 }, error => {
      if (error) return
      this.acknowledged.push(item)
      const due = this.waiters.filter(waiter => waiter.count <= this.acknowledged.length)
      this.waiters = this.waiters.filter(waiter => !due.includes(waiter))
      for (const waiter of due) waiter.wake()
    })
  }
}

const KEPT = {
  clean: false,
  clientId: 'ledger',
  reconnect: { delayMs: [10, 50] },
  drainTimeoutMs: 5_000,
} satisfies MqttModuleOptions

async function startLedger(options: MqttModuleOptions) {
  const ledger = new Ledger()
  const started = await startMicroservice(
    { ...KEPT, ...options },
    { controllers: [ledgerController(ledger)] },
  )
  return { ledger, ...started }
}

describe.each([5, 4] as const)(
  'a persistent session on MQTT version %i, 100 messages per second at QoS 1',
  protocolVersion => {
    it('the link is cut 20 times: every acknowledged message is handled', { timeout: 120_000 }, async () => {
      const broker = await Mosquitto.start()
      const link = new CuttableLink(broker.port)
      const { app, ledger, mqtt } = await startLedger({ createStream: link.createStream, protocolVersion })
      const producer = await Producer.start(broker.url)
      for (let cuts = 0; cuts < 20; cuts += 1) {
        await producer.more(20)
        link.cut()
      }
      await producer.more(20)
      await producer.stop()
      await eventually(() => producer.acknowledged.every(item => ledger.handled.has(item)))
      await app.close()
      expect(producer.acknowledged.length).toBeGreaterThanOrEqual(420)
      expect(ledger.outcomes).toHaveLength(ledger.attempted)
      expect(mqtt.stats().outbound.inFlight).toBe(0)
      await broker.stop()
    })

    it('mosquitto is restarted with SIGTERM 5 times: every acknowledged message is handled', {
      timeout: 120_000,
    }, async () => {
      const broker = await Mosquitto.start({ persistent: true })
      const { app, ledger, mqtt } = await startLedger({ url: broker.url, protocolVersion })
      const producer = await Producer.start(broker.url)
      for (let restarts = 0; restarts < 5; restarts += 1) {
        await producer.more(50)
        await broker.down('SIGTERM')
        await broker.up()
      }
      await producer.more(50)
      await producer.stop()
      await eventually(() => producer.acknowledged.every(item => ledger.handled.has(item)))
      await app.close()
      expect(ledger.outcomes).toHaveLength(ledger.attempted)
      expect(mqtt.stats().outbound.inFlight).toBe(0)
      await broker.stop()
    })

    it('mosquitto is restarted with SIGKILL 5 times and loses the session: every subscription is restored and receives later messages', {
      timeout: 120_000,
    }, async () => {
      const broker = await Mosquitto.start()
      const { app, ledger, mqtt, logger } = await startLedger({ url: broker.url, protocolVersion })
      for (let kills = 1; kills <= 5; kills += 1) {
        await broker.down('SIGKILL')
        await eventually(() => mqtt.state.status !== 'connected')
        await broker.up()
        await mqtt.whenConnected()
        await eventually(() => mqtt.stats().subscriptions.granted === 2)
        const client = await connectAsync(broker.url)
        await client.publishAsync('work/0/item', String(kills), { qos: 1 })
        await client.endAsync()
        await eventually(() => ledger.handled.has(kills))
      }
      await app.close()
      expect(ledger.outcomes).toHaveLength(ledger.attempted)
      expect(mqtt.stats().outbound.inFlight).toBe(0)
      expect(logger.ofMqtt.filter(line => line.includes('new session'))).toHaveLength(6)
      await broker.stop()
    })
  },
)
