import type { MqttClient as Mqtt } from 'mqtt'
import mqttPacket from 'mqtt-packet'
import { describe, expect, it, vi } from 'vitest'
import { MqttClient } from '../../src/client/index.js'
import { ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { SeededRandom } from '../support/seeded-random.js'

async function connected(protocolVersion: 4 | 5, options = {}) {
  const peer = new ScriptedPeer()
  const client = new MqttClient({
    createStream: peer.createStream,
    protocolVersion,
    keepalive: 0,
    ...options,
  })
  return { peer, client }
}

const publish = (version: 4 | 5, payload: string, messageId?: number, properties = {}) =>
  mqttPacket.generate(
    {
      cmd: 'publish',
      topic: 'a/b',
      payload,
      qos: messageId === undefined ? 0 : 1,
      dup: false,
      retain: false,
      ...(messageId === undefined ? {} : { messageId }),
      ...(version === 5 ? { properties } : {}),
    },
    { protocolVersion: version },
  )

describe.each([4, 5] as const)('MQTT %i: reading the stream', version => {
  async function started(options = {}) {
    const { peer, client } = await connected(version, options)
    const payloads: string[] = []
    client.subscribe<Buffer>('a/b', ({ payload }) => void payloads.push(payload.toString()), {
      codec: 'bytes',
    })
    const starting = client.start()
    const connection = await peer.accept()
    await connection.grant()
    await starting
    return { peer, client, connection, payloads }
  }

  async function closed(client: MqttClient, connection: { cut(): Promise<void> }) {
    const closing = client.close()
    await connection.cut()
    await closing
  }

  it('returns the same messages in the same order, however the stream is split into reads', async () => {
    const random = new SeededRandom(7)
    const { client, connection, payloads } = await started()
    const expected: string[] = []
    const parts: Buffer[] = []
    for (let index = 0; index < 400; index += 1) {
      const large = index % 50 === 0 ? 'x'.repeat(70_000) : index % 7 === 0 ? 'y'.repeat(300) : ''
      expected.push(`${index}${large}`)
      parts.push(publish(version, `${index}${large}`, index % 3 === 0 ? undefined : index + 1))
      if (index % 11 === 0) parts.push(mqttPacket.generate({ cmd: 'pingresp' }))
      if (index % 13 === 0)
        parts.push(
          mqttPacket.generate(
            { cmd: 'unsuback', messageId: 60_000, granted: [0] },
            { protocolVersion: version },
          ),
        )
    }
    const bytes = Buffer.concat(parts)
    for (let at = 0; at < bytes.length; ) {
      const end = Math.min(bytes.length, at + 1 + Math.floor(random.next() ** 4 * 30_000))
      connection.sendBytes(bytes.subarray(at, end))
      at = end
    }
    await eventually(() => payloads.length >= 400)
    expect(payloads).toEqual(expected)
    await eventually(() => connection.received.filter(({ cmd }) => cmd === 'puback').length === 266)
    await closed(client, connection)
  })

  it('lets handlers end between the messages of one read', async () => {
    // One read holds far more messages than may wait; a handler that ends in a microtask makes room in time.
    const { client, connection, payloads } = await started({ inbound: { maxQueued: 32 } })
    connection.sendBytes(
      Buffer.concat(Array.from({ length: 1_000 }, (_, index) => publish(version, `${index}`))),
    )
    await eventually(() => payloads.length >= 1_000)
    expect(client.stats().inbound.dropped).toBe(0)
    await closed(client, connection)
  })

  it('lets timers and other connections run if the handlers of one read take long', async () => {
    vi.useFakeTimers({ toFake: ['performance'] })
    const { client, connection, payloads } = await started({ inbound: { maxQueued: 2_000 } })
    client.subscribe('a/b', () => void vi.advanceTimersByTime(1), { codec: 'bytes' })
    connection.sendBytes(
      Buffer.concat(Array.from({ length: 1_000 }, (_, index) => publish(version, `${index}`))),
    )
    await eventually(() => payloads.length > 0)
    // The event loop has turned once since the first of them.
    expect(payloads.length).toBeLessThan(200)
    await eventually(() => payloads.length >= 1_000)
    await closed(client, connection)
    vi.useRealTimers()
  })

  it('also reports messages to listeners of the mqtt client', async () => {
    const { client, connection, payloads } = await started()
    const topics: string[] = []
    client.unwrap<Mqtt>().on('message', topic => topics.push(topic))
    connection.sendBytes(publish(version, 'x', 1))
    await eventually(() => payloads.length > 0)
    expect(topics).toEqual(['a/b'])
    await closed(client, connection)
  })
})
