import { describe, expect, it } from 'vitest'
import { holdClock } from '../support/held-clock.js'
import { comeBack, finish } from '../support/publisher-on-peer.js'
import { acks, KEPT, qos1, settle, subscriberOnPeer, VERSIONS } from '../support/subscriber-on-peer.js'

holdClock()

describe.each(VERSIONS)('MQTT %i: onFailure "disconnect"', protocolVersion => {
  it('ends the connection without PUBACK, and handles what the broker delivers again', async () => {
    const parts = await subscriberOnPeer({ protocolVersion, ...KEPT })
    const { mqtt, connection } = parts
    const ran: number[] = []
    const handler = () => {
      ran.push(ran.length + 1)
      if (ran.length === 1) throw new Error('the database is down')
    }
    mqtt.subscribe('a', handler, { onFailure: 'disconnect' })
    await connection.grant()
    connection.send(qos1('a', 9))
    await settle(mqtt)
    await connection.closed()
    expect(acks(connection)).toEqual([])
    const last = connection.received.at(-1)
    if (protocolVersion === 5) expect(last).toMatchObject({ cmd: 'disconnect', reasonCode: 0x83 })
    else expect(last?.cmd).toBe('subscribe')
    expect(mqtt.stats().inbound).toMatchObject({ givenBack: 1, running: 0 })
    const second = await comeBack(parts, { sessionPresent: true })
    second.send(qos1('a', 9, 9, true))
    await settle(mqtt)
    expect(ran).toEqual([1, 2])
    expect(acks(second)).toEqual([9])
    expect(mqtt.stats().inbound).toMatchObject({ received: 2, handled: 1, givenBack: 1, repeated: 0 })
    await finish(parts)
  })

  it('is refused where the broker keeps no session', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const register = () => parts.mqtt.subscribe('a', () => {}, { onFailure: 'disconnect' })
    expect(register).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
    expect(register).toThrow('handler of "a": onFailure "disconnect"')
    await finish(parts)
  })

  it('gives back what was behind it too, and handles that once', async () => {
    const parts = await subscriberOnPeer({ protocolVersion, ...KEPT })
    const { mqtt, connection } = parts
    const ran: unknown[] = []
    let isBroken = true
    const handler = ({ payload }: { payload: unknown }) => {
      ran.push(payload)
      if (payload === 'bad' && isBroken) throw new Error('broken')
    }
    mqtt.subscribe('t/+', handler, { onFailure: 'disconnect' })
    await connection.grant()
    connection.send(qos1('t/1', 1, 'bad'))
    connection.send(qos1('t/2', 2, 'good'))
    await settle(mqtt)
    await connection.closed()
    isBroken = false
    const second = await comeBack(parts, { sessionPresent: true })
    second.send(qos1('t/1', 1, 'bad', true))
    second.send(qos1('t/2', 2, 'good', true))
    await settle(mqtt)
    expect(ran).toEqual(['bad', 'good', 'bad'])
    expect(acks(second)).toEqual([1, 2])
    await finish(parts)
  })

  it('is refused where the Session Expiry Interval is 0', async () => {
    const options = { protocolVersion, ...KEPT, properties: { sessionExpiryInterval: 0 } }
    const parts = await subscriberOnPeer(options)
    expect(() => parts.mqtt.subscribe('a', () => {}, { onFailure: 'disconnect' })).toThrow('disconnect')
    await finish(parts)
  })
})
