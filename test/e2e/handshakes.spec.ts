import 'reflect-metadata'
import fc from 'fast-check'
import { connectAsync, type MqttClient } from 'mqtt'
import { describe, expect, it } from 'vitest'
import type { MqttModuleOptions, MqttService, PublishOutcome } from '../../src/index.js'
import { FaultLink } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'
import { startMicroservice } from '../support/nest-app.js'

const QOS_1 = 2_000
const QOS_2 = 500
const SEED = 20_261_120

const KEPT = {
  clean: false,
  clientId: 'publisher',
  reconnect: { delayMs: [5] },
  outbound: { maxInFlight: 50 },
  drainTimeoutMs: 5_000,
} satisfies MqttModuleOptions

/** What another client of the broker sees. */
class Witness {
  readonly seen: string[] = []

  private constructor(private readonly client: MqttClient) {
    client.on('message', (_topic, payload) => this.seen.push(payload.toString()))
  }

  static async start(url: string): Promise<Witness> {
    const client = await connectAsync(url, { clientId: 'witness', clean: false, reconnectPeriod: 5 })
    const witness = new Witness(client)
    await client.subscribeAsync('out/#', { qos: 2 })
    return witness
  }

  count(payload: string): number {
    return this.seen.filter(candidate => candidate === payload).length
  }

  stop(): Promise<void> {
    return this.client.endAsync(true)
  }
}

interface Published {
  readonly payload: string
  readonly qos: 1 | 2
  readonly outcome: PublishOutcome
}

/** Publishes everything; what is dropped is tried again, since it was not sent. */
async function publishAll(mqtt: MqttService, settled: Published[]): Promise<void> {
  const publish = async (payload: string, qos: 1 | 2): Promise<void> => {
    for (;;) {
      const outcome = await mqtt.publish(`out/${qos}`, payload, { qos, codec: 'text' })
      if (outcome.status !== 'dropped') {
        settled.push({ payload, qos, outcome })
        return
      }
      await mqtt.whenConnected()
      await new Promise(setImmediate)
    }
  }
  const jobs = [
    ...Array.from({ length: QOS_1 }, (_, index) => () => publish(`one-${index}`, 1)),
    ...Array.from({ length: QOS_2 }, (_, index) => () => publish(`two-${index}`, 2)),
  ]
  const worker = async (): Promise<void> => {
    for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) await job()
  }
  await Promise.all(Array.from({ length: 50 }, worker))
}

/** After how many settled publishes the next cut comes: replayable by the seed. */
function cutPoints(count: number): number[] {
  const [points = []] = fc.sample(
    fc.array(fc.integer({ min: 20, max: 110 }), { minLength: count, maxLength: count }),
    {
      seed: SEED,
      numRuns: 1,
    },
  )
  return points
}

describe.each([5, 4] as const)('publishing in a persistent session on MQTT version %i', protocolVersion => {
  it('settles each publish once while the link is cut 20 times during handshakes', {
    timeout: 120_000,
  }, async () => {
    const broker = await Mosquitto.start({ config: ['max_queued_messages 0', 'max_inflight_messages 0'] })
    const link = await FaultLink.start({ port: broker.port })
    const witness = await Witness.start(broker.url)
    const { app, mqtt } = await startMicroservice({ ...KEPT, url: link.url, protocolVersion }, {})
    const settled: Published[] = []
    const all = publishAll(mqtt, settled)
    let next = 0
    for (const settledMore of cutPoints(20)) {
      next += settledMore
      await eventually(() => settled.length >= next)
      link.cut()
    }
    await all
    expect(settled).toHaveLength(QOS_1 + QOS_2)
    expect(mqtt.stats().outbound.inFlight).toBe(0)
    expect(mqtt.stats().connection.losses).toBeGreaterThanOrEqual(15)
    await app.close()
    const acknowledged = settled.filter(({ outcome }) => outcome.status === 'acknowledged')
    expect(acknowledged).toHaveLength(QOS_1 + QOS_2)
    await eventually(() => acknowledged.every(({ payload }) => witness.seen.includes(payload)))
    const doubled = acknowledged.filter(({ qos, payload }) => qos === 2 && witness.count(payload) !== 1)
    expect(doubled).toEqual([])
    await witness.stop()
    await link.stop()
    await broker.stop()
  })

  it('settles each publish once, with the correct outcome, while mosquitto is restarted with SIGKILL 5 times', {
    timeout: 120_000,
  }, async () => {
    const broker = await Mosquitto.start({ config: ['max_queued_messages 0', 'max_inflight_messages 0'] })
    const { app, mqtt } = await startMicroservice({ ...KEPT, url: broker.url, protocolVersion }, {})
    const settled: Published[] = []
    const all = publishAll(mqtt, settled)
    let next = 0
    for (const settledMore of cutPoints(5)) {
      next += settledMore
      await eventually(() => settled.length >= next)
      await broker.down('SIGKILL')
      await broker.up()
    }
    await all
    expect(settled).toHaveLength(QOS_1 + QOS_2)
    const statuses = new Set(settled.map(({ outcome }) => outcome.status))
    expect([...statuses].sort()).toEqual(['acknowledged', 'lost'])
    // The broker forgot the session each time, and said so.
    expect(mqtt.stats().connection.sessionsLost).toBe(mqtt.stats().connection.losses)
    expect(mqtt.stats().outbound).toMatchObject({ inFlight: 0, refused: 0 })
    await app.close()
    await broker.stop()
  })
})
