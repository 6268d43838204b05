import { describe, expect, it } from 'vitest'
import { holdClock } from '../support/held-clock.js'
import { comeBack, finish, flow, publisherOnPeer, Watched } from '../support/publisher-on-peer.js'

holdClock()

type Wrong = 'puback' | 'pubrec' | 'pubcomp'
const CASES: readonly [what: string, qos: 1 | 2, cmd: Wrong, isReleased: boolean, expected: string][] = [
  ['PUBREC for QoS 1', 1, 'pubrec', false, 'PUBREC instead of PUBACK'],
  ['PUBCOMP for QoS 1', 1, 'pubcomp', false, 'PUBCOMP instead of PUBACK'],
  ['PUBCOMP for QoS 2 before PUBREC', 2, 'pubcomp', false, 'PUBCOMP instead of PUBREC'],
  ['PUBACK for QoS 2 after PUBREC', 2, 'puback', true, 'PUBACK instead of PUBCOMP'],
]

async function publishing(protocolVersion: 4 | 5, qos: 1 | 2, isReleased: boolean, clean: boolean) {
  const parts = await publisherOnPeer({ protocolVersion, clean, clientId: 'device' })
  const publish = new Watched(parts.mqtt.publish('alarm', 1, { qos }))
  const { messageId = 0 } = await parts.connection.expect('publish')
  if (isReleased) {
    parts.connection.send({ cmd: 'pubrec', messageId })
    await parts.connection.expect('pubrel')
  }
  return { ...parts, publish, messageId }
}

describe.each([4, 5] as const)('an acknowledgement of the wrong kind, in MQTT version %i', version => {
  it.each(CASES)(
    '(%s) ends the connection, and the publish is sent again',
    async (_, qos, cmd, isReleased, text) => {
      const { publish, messageId, ...parts } = await publishing(version, qos, isReleased, false)
      parts.connection.send({ cmd, messageId })
      if (version === 5)
        expect(await parts.connection.expect('disconnect')).toMatchObject({ reasonCode: 0x82 })
      await flow()
      expect(parts.session.connection.state).toMatchObject({
        status: 'waiting',
        cause: {
          code: 'CONNECTION_LOST',
          message: `the broker sent ${text} for the publish to "alarm" (QoS ${qos})`,
        },
      })
      expect(publish.outcome).toBeUndefined()
      if (version === 4)
        expect(parts.connection.received.map(packet => packet.cmd)).not.toContain('disconnect')
      const connection = await comeBack(parts, { sessionPresent: true })
      const again = isReleased ? await connection.expect('pubrel') : await connection.expect('publish')
      expect(again).toMatchObject(isReleased ? { messageId } : { messageId, dup: true })
      if (qos === 1) connection.send({ cmd: 'puback', messageId })
      else {
        if (!isReleased) connection.send({ cmd: 'pubrec', messageId })
        connection.send({ cmd: 'pubcomp', messageId })
      }
      await flow()
      expect(publish.outcome).toEqual({ status: 'acknowledged', reasonCode: 0 })
      await finish(parts)
    },
  )

  it('makes the publish lost if the session ends with the connection', async () => {
    const { publish, messageId, ...parts } = await publishing(version, 2, false, true)
    parts.connection.send({ cmd: 'pubcomp', messageId })
    await flow()
    expect(publish.outcome).toMatchObject({ status: 'lost', cause: { code: 'CONNECTION_LOST' } })
    await finish(parts)
  })

  it('does not count as progress: a publish that always receives one is lost in the end', async () => {
    const { publish, messageId, ...parts } = await publishing(version, 1, false, false)
    let { connection } = parts
    for (let count = 0; publish.outcome === undefined && count < 20; count += 1) {
      connection.send({ cmd: 'pubrec', messageId })
      await flow()
      connection = await comeBack(parts, { sessionPresent: true })
      await flow()
    }
    expect(publish.outcome).toMatchObject({ status: 'lost' })
    await finish(parts)
  })

  it('is PUBACK for a QoS 2 publish that a broker downgrades to QoS 1: the publish is acknowledged', async () => {
    const { publish, messageId, ...parts } = await publishing(version, 2, false, true)
    parts.connection.send({ cmd: 'puback', messageId })
    await flow()
    expect(publish.outcome).toEqual({ status: 'acknowledged', reasonCode: 0 })
    expect(parts.session.connection.state.status).toBe('connected')
    await finish(parts)
  })
})
