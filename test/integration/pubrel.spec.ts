import { describe, expect, it } from 'vitest'
import { eventually } from '../support/eventually.js'
import { json, KEPT, subscriberOnPeer, VERSIONS } from '../support/subscriber-on-peer.js'

describe.each(VERSIONS)('MQTT %i: PUBREL', protocolVersion => {
  /** MQTT 3.1.1 has no Reason Codes. */
  const success = protocolVersion === 5 ? { reasonCode: 0 } : {}
  const unknown = protocolVersion === 5 ? { reasonCode: 0x92 } : {}
  const pubcomps = (connection: { readonly received: readonly { readonly cmd: string }[] }) =>
    connection.received.filter(({ cmd }) => cmd === 'pubcomp')

  async function receiving() {
    const parts = await subscriberOnPeer({
      protocolVersion,
      ...KEPT,
      reconnect: { delayMs: [0], resetAfterMs: 0 },
    })
    const ran: unknown[] = []
    parts.mqtt.subscribe(
      'a',
      ({ payload }) => {
        ran.push(payload)
      },
      { qos: 2 },
    )
    await parts.connection.grant()
    return { ...parts, ran }
  }

  it('for an unknown Packet Identifier is completed and does not end the connection', async () => {
    const { connection, session } = await receiving()
    connection.send({ cmd: 'pubrel', messageId: 9 })
    expect(await connection.find('pubcomp')).toMatchObject({ messageId: 9, ...unknown })
    await session.close()
  })

  it('for a received message is completed with success, once', async () => {
    const { connection, session, mqtt, ran } = await receiving()
    connection.send(json('a', 1, { qos: 2, messageId: 9 }))
    for (let count = 0; count < 2; count += 1) connection.send({ cmd: 'pubrel', messageId: 9 })
    await eventually(() => pubcomps(connection).length === 2)
    expect(pubcomps(connection)).toMatchObject([
      { messageId: 9, ...success },
      { messageId: 9, ...unknown },
    ])
    expect({ ran, received: mqtt.stats().inbound.received }).toEqual({ ran: [1], received: 1 })
    await session.close()
  })

  it('on a resumed session releases an earlier message, and an unknown one does not end the connection', async () => {
    const { connection, session, peer, ran } = await receiving()
    connection.send(json('a', 1, { qos: 2, messageId: 9 }))
    await connection.find('pubrec')
    await connection.cut()
    const second = await peer.accept({ sessionPresent: true })
    for (const messageId of [9, 10]) second.send({ cmd: 'pubrel', messageId })
    await eventually(() => pubcomps(second).length === 2)
    expect(pubcomps(second)).toMatchObject([
      { messageId: 9, ...success },
      { messageId: 10, ...unknown },
    ])
    expect(ran).toEqual([1])
    expect(session.connection.state.status).toBe('connected')
    await session.close()
  })
})
