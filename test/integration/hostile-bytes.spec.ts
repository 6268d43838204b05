import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { eventually } from '../support/eventually.js'
import { failOnEscapedErrors, listening } from '../support/hostile-session.js'
import { acks, json, qos1, VERSIONS } from '../support/subscriber-on-peer.js'

failOnEscapedErrors()

/** The fixed header of a QoS 0 PUBLISH whose Remaining Length is the largest there is: 256 MB. */
const HUGE = Buffer.from('30ffffff7f', 'hex')

describe.each(VERSIONS)('MQTT %i: a packet that is larger than inbound.maxPacketBytes', protocolVersion => {
  const limited = { protocolVersion, inbound: { maxPacketBytes: 1_000 } }

  it.each([
    ['in one piece', [HUGE]],
    ['byte by byte', [...HUGE].map(byte => Buffer.from([byte]))],
    ['behind another packet', [Buffer.concat([Buffer.from('d000', 'hex'), HUGE])]],
  ])('ends the connection as soon as its length is there: %s', async (_how, pieces) => {
    const { connection, causes, peer, session } = await listening(limited)
    for (const piece of pieces) {
      connection.sendBytes(piece)
      await nextTurn()
    }
    await connection.closed()
    await eventually(() => causes.length === 1)
    expect(causes[0]).toMatchObject({
      code: 'CONNECTION_LOST',
      reasonCode: 0x95,
      message: 'the broker sent a packet of 268435460 bytes; inbound.maxPacketBytes is 1000',
    })
    const last = connection.received.at(-1)
    if (protocolVersion === 5) expect(last).toMatchObject({ cmd: 'disconnect', reasonCode: 0x95 })
    else expect(last?.cmd).toBe('connect')
    await peer.accept()
    await session.connection.whenConnected()
    await session.close()
  })
})

describe.each(VERSIONS)('MQTT %i: a malicious payload', protocolVersion => {
  const DEPTH = 100_000

  it.each([
    ['nested deeply', Buffer.from('['.repeat(DEPTH) + ']'.repeat(DEPTH))],
    ['nested deeply, without an end', Buffer.from('['.repeat(DEPTH))],
    ['that is no UTF-8', Buffer.from([0x22, 0xff, 0xfe, 0x22])],
    ['with half of a surrogate pair', Buffer.from('"\\ud800"')],
    ['that names the prototype', Buffer.from('{"__proto__":{"polluted":1},"constructor":{"prototype":1}}')],
    ['of NUL', Buffer.alloc(100)],
    ['that is a number beyond all numbers', Buffer.from(`1${'0'.repeat(10_000)}`)],
  ])('%s costs one message at most', async (_what, payload) => {
    const { connection, mqtt, session, causes } = await listening({ protocolVersion })
    const seen: unknown[] = []
    mqtt.subscribe('a', ({ payload: value }) => {
      seen.push(JSON.stringify(value).length)
    })
    await connection.grant()
    connection.send({ ...qos1('a', 1), payload })
    connection.send(qos1('a', 2, 'next'))
    await eventually(() => acks(connection).length === 2)
    expect(seen.at(-1)).toBe('"next"'.length)
    expect(mqtt.stats().inbound).toMatchObject({ received: 2, handled: 2 })
    expect(causes).toEqual([])
    expect(Object.getPrototypeOf({})).not.toHaveProperty('polluted')
    await session.close()
  })

  it('topics and User Properties with the names of object members are plain data', async () => {
    const { connection, mqtt, session } = await listening({ protocolVersion })
    const seen: unknown[] = []
    mqtt.subscribe('+first/+second', ({ params, properties }) => {
      seen.push({ ...params }, Object.getPrototypeOf(properties.userProperties ?? {}))
    })
    await connection.grant()
    const userProperties = Object.fromEntries([['__proto__', 'x']])
    const fields = protocolVersion === 5 ? { properties: { userProperties } } : {}
    connection.send(json('__proto__/constructor', 1, { qos: 1, messageId: 1, ...fields }))
    await eventually(() => acks(connection).length === 1)
    expect(seen[0]).toEqual({ first: '__proto__', second: 'constructor' })
    expect([null, Object.prototype]).toContain(seen[1])
    await session.close()
  })
})
