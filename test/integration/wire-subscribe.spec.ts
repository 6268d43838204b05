import { describe, expect, it } from 'vitest'
import { quiet } from '../support/held-clock.js'
import { VERSIONS } from '../support/subscriber-on-peer.js'
import { onWire, TYPE, type WirePacket } from '../support/wire.js'

const hexOf = (text: string): string => {
  const bytes = Buffer.from(text)
  return Buffer.concat([Buffer.from([0, bytes.length]), bytes]).toString('hex')
}
/** What follows the Packet Identifier, without a Subscription Identifier. */
const payloadOf = ({ body }: WirePacket): string => body.subarray(2).toString('hex')
const NO_IDENTIFIERS = { properties: { subscriptionIdentifiersAvailable: false } }

describe.each(VERSIONS)('MQTT %i: the bytes of SUBSCRIBE', protocolVersion => {
  const noProperties = protocolVersion === 5 ? '00' : ''

  it('have the flags 0010, a Packet Identifier, and the filter in UTF-8 with its options', async () => {
    const { client, wire } = await onWire({ protocolVersion }, NO_IDENTIFIERS)
    client.subscribe('a/ü/+', () => {}, { qos: 2, noLocal: true, retainHandling: 1 })
    const packet = await wire.find(TYPE.subscribe)
    const options = protocolVersion === 5 ? 0b0001_1110 : 2
    expect(packet.flags).toBe(0b0010)
    expect(packet.body.readUInt16BE(0)).toBeGreaterThan(0)
    expect(payloadOf(packet)).toBe(`${noProperties}${hexOf('a/ü/+')}${options.toString(16).padStart(2, '0')}`)
    await client.close()
  })

  it('keep their reserved bits 0 for every combination of options', async () => {
    const { client, wire } = await onWire({ protocolVersion })
    let count = 0
    for (const qos of [0, 1, 2] as const)
      for (const noLocal of [false, true])
        for (const retainHandling of [0, 1, 2] as const) {
          count += 1
          client.subscribe(`f/${count}`, () => {}, { qos, noLocal, retainHandling })
        }
    await quiet()
    const options = wire.of(TYPE.subscribe).map(({ body }) => body.readUInt8(body.length - 1))
    expect(options).toHaveLength(count)
    const reserved = protocolVersion === 5 ? 0b1100_0000 : 0b1111_1100
    expect(options.every(byte => (byte & reserved) === 0 && (byte & 3) < 3)).toBe(true)
    await client.close()
  })

  it('never ask for No Local in a Shared Subscription', async () => {
    const { client, wire } = await onWire({ protocolVersion })
    client.subscribe('$share/group/a', () => {}, { noLocal: true })
    const { body } = await wire.find(TYPE.subscribe)
    expect(body.toString()).toContain('$share/group/a')
    expect(body.readUInt8(body.length - 1) & 0b100).toBe(0)
    await client.close()
  })

  it('always have at least one filter', async () => {
    const { client, wire } = await onWire({ protocolVersion }, NO_IDENTIFIERS)
    const subscription = client.subscribe('a', () => {})
    client.subscribe('b', () => {})
    await wire.find(TYPE.subscribe)
    void subscription.unsubscribe().catch(() => {})
    await wire.find(TYPE.unsubscribe)
    await quiet()
    for (const packet of [...wire.of(TYPE.subscribe), ...wire.of(TYPE.unsubscribe)])
      expect(payloadOf(packet)).toMatch(new RegExp(`^${noProperties}000161|^${noProperties}000162`))
    await client.close()
  })
})

describe.each(VERSIONS)('MQTT %i: the bytes of UNSUBSCRIBE', protocolVersion => {
  it('have the flags 0010, a Packet Identifier, and the filter in UTF-8', async () => {
    const { client, wire } = await onWire({ protocolVersion })
    const subscription = client.subscribe('a/ü/#', () => {})
    await wire.find(TYPE.subscribe)
    void subscription.unsubscribe().catch(() => {})
    const packet = await wire.find(TYPE.unsubscribe)
    expect(packet.flags).toBe(0b0010)
    expect(packet.body.readUInt16BE(0)).toBeGreaterThan(0)
    expect(payloadOf(packet)).toBe((protocolVersion === 5 ? '00' : '') + hexOf('a/ü/#'))
    await client.close()
  })
})

describe('MQTT 5: the Subscription Identifier of SUBSCRIBE', () => {
  it('is encoded in the fewest bytes', async () => {
    const { client, wire } = await onWire()
    for (let index = 1; index <= 200; index += 1) client.subscribe(`f/${index}`, () => {})
    await wire.find(TYPE.subscribe, 200)
    const lengths = wire.of(TYPE.subscribe).map(({ body }) => {
      const [size = 0, kind, ...identifier] = body.subarray(2)
      expect(kind).toBe(0x0b)
      const bytes = identifier.slice(0, size - 1)
      // A byte that could be left out is 0 at the end.
      expect(bytes.at(-1)).toBeGreaterThan(0)
      expect(bytes.at(-1)).toBeLessThan(0x80)
      return bytes.length
    })
    expect(Math.max(...lengths)).toBeGreaterThan(1)
    await client.close()
  })
})

describe('the end of a connection by the client', () => {
  it.each(VERSIONS)(
    'is DISCONNECT as the last packet, and then the end of the stream (MQTT %i)',
    async protocolVersion => {
      const { client, connection, wire } = await onWire({ protocolVersion })
      await client.publish('a', 1)
      await client.close()
      await connection.closed()
      expect(wire.of(TYPE.disconnect).map(({ hex }) => hex)).toEqual([
        expect.stringMatching(/^e0(00|0100|020000)$/),
      ])
      expect(wire.packets.at(-1)?.type).toBe(TYPE.disconnect)
      expect(await client.publish('b', 1)).toMatchObject({ status: 'dropped', reason: 'closed' })
      expect(wire.packets.at(-1)?.type).toBe(TYPE.disconnect)
    },
  )
})

describe('the reserved flags', () => {
  it('of CONNECT, PUBACK, PUBREC, PUBCOMP, PINGREQ and DISCONNECT are 0', async () => {
    const { client, connection, wire } = await onWire({ outbound: { flowControl: 'markers' } })
    client.subscribe('a', () => {}, { qos: 2 })
    const { body } = await wire.find(TYPE.subscribe)
    connection.send({ cmd: 'suback', messageId: body.readUInt16BE(0), granted: [2] })
    const message = { cmd: 'publish', topic: 'a', payload: '1', dup: false, retain: false } as const
    connection.send({ ...message, qos: 1, messageId: 1 })
    connection.send({ ...message, qos: 2, messageId: 2 })
    await wire.find(TYPE.pubrec)
    connection.send({ cmd: 'pubrel', messageId: 2 })
    await wire.find(TYPE.pubcomp)
    await client.publish('b', Buffer.alloc(10_000))
    await wire.find(TYPE.pingreq)
    await client.close()
    for (const name of ['connect', 'puback', 'pubrec', 'pubcomp', 'pingreq', 'disconnect'] as const) {
      const packets = wire.of(TYPE[name])
      expect(packets.length).toBeGreaterThan(0)
      expect(packets.every(({ flags }) => flags === 0)).toBe(true)
    }
  })
})
