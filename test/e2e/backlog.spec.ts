import { connectAsync } from 'mqtt'
import { describe, expect, it, onTestFinished } from 'vitest'
import { MqttClient } from '../../src/client/index.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'
import { RecordingLog } from '../support/recording-log.js'

const COUNT = 30
const LARGE = 1_000_000
const MOST = 8 * LARGE
const UNLIMITED = ['max_inflight_messages 0', 'max_queued_messages 0', 'max_queued_bytes 0']
const SESSION = { clean: false, clientId: 'backlog' } as const

/** Leaves a backlog in the session of a client that is offline. */
async function leaveBacklog(url: string): Promise<void> {
  const subscriber = await connectAsync(url, SESSION)
  await subscriber.subscribeAsync('a/1', { qos: 1 })
  await subscriber.endAsync()
  const publisher = await connectAsync(url)
  for (let value = 1; value <= COUNT; value += 1) {
    const payload = Buffer.alloc(LARGE)
    payload.writeUInt32BE(value)
    await publisher.publishAsync('a/1', payload, { qos: 1 })
  }
  await publisher.endAsync()
}

describe('a backlog of large messages at a mosquitto without a limit on messages in flight', () => {
  it('is handled once and in order, in bounded memory, while handlers publish at QoS 1', async () => {
    const broker = await Mosquitto.start({ config: UNLIMITED })
    onTestFinished(() => broker.stop())
    await leaveBacklog(broker.url)
    const log = new RecordingLog()
    const client = new MqttClient({
      url: broker.url,
      protocolVersion: 4,
      inbound: { maxQueuedBytes: MOST },
      logger: log,
      ...SESSION,
    })
    const seen: number[] = []
    let most = 0
    client.subscribe<Buffer>(
      'a/1',
      async ({ payload }) => {
        seen.push(payload.readUInt32BE())
        await client.publish('out', 'x', { qos: 1, whenBlocked: 'wait' })
        most = Math.max(most, client.stats().inbound.queuedBytes)
      },
      { codec: 'bytes' },
    )
    await client.start()
    await eventually(() => seen.length >= COUNT && client.stats().inbound.running === 0)
    const { connection, inbound } = client.stats()
    await client.close()
    expect(seen).toEqual(Array.from({ length: COUNT }, (_, index) => index + 1))
    expect(most).toBeLessThanOrEqual(MOST + 2 * LARGE)
    expect(connection).toMatchObject({ losses: 0, sessionsLost: 0 })
    expect(inbound).toMatchObject({ handled: COUNT, dropped: 0, queuedBytes: 0 })
  })
})
