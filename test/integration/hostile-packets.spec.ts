import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { isMqttError } from '../../src/core/errors.js'
import { eventually } from '../support/eventually.js'
import { hostilePacket } from '../support/hostile-packets.js'
import { failOnEscapedErrors, listening } from '../support/hostile-session.js'
import { SeededRandom } from '../support/seeded-random.js'
import { message } from '../support/session-on-peer.js'
import { acks, qos1, VERSIONS } from '../support/subscriber-on-peer.js'

/** Another run: FUZZ_SEED=… ; a longer one, before a release: HOSTILE_PACKETS=100000. */
const SEED = Number(process.env['FUZZ_SEED'] ?? 20_261_121)
const PACKETS = Number(process.env['HOSTILE_PACKETS'] ?? 20_000)
/** On one connection: what comes behind bytes that end it is not looked at. */
const PACKETS_OF_CONNECTION = 8
const FUZZ_TIMEOUT_MS = 30_000 + PACKETS * 10

failOnEscapedErrors()

describe.each(VERSIONS)('MQTT %i: the limit of inbound.maxPacketBytes', protocolVersion => {
  const limited = { protocolVersion, inbound: { maxPacketBytes: 1_000 } }

  it('is exact to the byte', async () => {
    const { connection, causes, mqtt, session } = await listening(limited)
    const properties = protocolVersion === 5 ? 1 : 0
    // Fixed header 3, length of the topic 2, the topic 1.
    const fits = Buffer.alloc(1_000 - 6 - properties, '1')
    connection.send(message('a', { payload: fits }))
    await eventually(() => mqtt.stats().inbound.received === 1)
    connection.send(message('a', { payload: Buffer.concat([fits, Buffer.from('1')]) }))
    await connection.closed()
    await eventually(() => causes.length === 1)
    expect(causes[0]).toMatchObject({ reasonCode: 0x95 })
    expect(mqtt.stats().inbound.received).toBe(1)
    await session.close()
  })
})

describe.each(VERSIONS)('MQTT %i: damaged packets of the broker', protocolVersion => {
  it(
    `${PACKETS / 2} of them only affect their connection, which is established again (seed ${SEED})`,
    async () => {
      const random = new SeededRandom(SEED + protocolVersion)
      const limits = { maxPacketBytes: 65_536, concurrency: 4 }
      const parts = await listening({ protocolVersion, inbound: limits })
      const { peer, session, mqtt, causes } = parts
      mqtt.subscribe('a/+', () => {})
      mqtt.subscribe('b', () => Promise.reject(new Error('broken')))
      const outcomes: Promise<unknown>[] = []
      let connection = parts.connection
      let endedByBytes = 0
      for (let sent = 0; sent < PACKETS / 2; sent += PACKETS_OF_CONNECTION) {
        outcomes.push(mqtt.publish('out', sent, { qos: random.pick([1, 2]) }))
        for (let count = 0; count < PACKETS_OF_CONNECTION; count += 1)
          connection.sendBytes(hostilePacket(random, protocolVersion))
        for (let turn = 0; turn < 4; turn += 1) await nextTurn()
        if (session.connection.state.status !== 'connected') endedByBytes += 1
        connection.cut()
        connection = await peer.accept()
        await session.connection.whenConnected()
      }
      expect(causes.every(cause => isMqttError(cause, 'CONNECTION_LOST') && cause.message !== '')).toBe(true)
      expect(causes.filter(({ message }) => message.includes('internal error'))).toEqual([])
      expect(endedByBytes).toBeGreaterThan(0)
      expect(mqtt.stats().inbound.received).toBeGreaterThan(0)
      const { handled } = mqtt.stats().inbound
      connection.send(qos1('a/1', 7))
      await eventually(() => mqtt.stats().inbound.handled > handled && acks(connection).includes(7))
      await session.close()
      expect(await Promise.all(outcomes)).toHaveLength(outcomes.length)
      expect(Object.getPrototypeOf({})).not.toHaveProperty('polluted')
    },
    FUZZ_TIMEOUT_MS,
  )
})
