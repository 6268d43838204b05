import { describe, expect, it } from 'vitest'
import { Gate } from '../support/gate.js'
import { holdClock } from '../support/held-clock.js'
import { comeBack, finish, goOffline, pass } from '../support/publisher-on-peer.js'
import { acks, json, KEPT, qos1, settle, subscriberOnPeer, VERSIONS } from '../support/subscriber-on-peer.js'

holdClock()

describe.each(VERSIONS)('MQTT %i: onFailure "disconnect"', protocolVersion => {
  it('closes the connection without PUBACK, and handles the message when the broker delivers it again', async () => {
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

  it('keeps the connection for longer each time one message fails again', async () => {
    const parts = await subscriberOnPeer({ protocolVersion, ...KEPT })
    const { mqtt } = parts
    let failures = 0
    mqtt.subscribe(
      'poison',
      () => {
        failures += 1
        throw new Error('poison')
      },
      { onFailure: 'disconnect' },
    )
    await parts.connection.grant()
    const ran: unknown[] = []
    mqtt.subscribe('other', ({ payload }) => {
      ran.push(payload)
    })
    await parts.connection.grant()
    let { connection } = parts
    const kept: number[] = []
    for (let delivery = 1; delivery <= 9; delivery += 1) {
      connection.send(qos1('poison', 9, 9, delivery > 1))
      await settle(mqtt)
      connection.send(json('other', delivery))
      const before = performance.now()
      while (parts.session.connection.state.status === 'connected') await pass(100, 100)
      kept.push(Math.round((performance.now() - before) / 1_000))
      connection = await comeBack(parts, { sessionPresent: true })
    }
    expect(failures).toBe(9)
    expect(kept).toEqual([0, 1, 2, 4, 8, 16, 32, 60, 60])
    expect(ran).toEqual([2, 3, 4, 5, 6, 7, 8, 9])
    expect(parts.log.visible.join('\n')).toContain(
      'the handler of "poison" failed for delivery 9 of a message, and onFailure is "disconnect"',
    )
    expect(mqtt.stats().inbound).toMatchObject({ givenBack: 9, running: 0 })
    await finish(parts)
  })

  it('leaves the next connection alone if the broker has lost the session, and with it the message', async () => {
    const parts = await subscriberOnPeer({ protocolVersion, ...KEPT })
    const { mqtt, connection } = parts
    const gate = new Gate()
    const failing = async ({ payload }: { payload: unknown }) => {
      if (payload === 'late') await gate.pass()
      throw new Error('no')
    }
    mqtt.subscribe('a/+', failing, { onFailure: 'disconnect', order: 'none' })
    await connection.grant()
    connection.send(qos1('a/1', 1, 'again', true))
    await settle(mqtt)
    const second = await comeBack(parts, { sessionPresent: true })
    second.send(qos1('a/1', 1, 'again', true))
    await pass(1_100, 100)
    const third = await comeBack(parts, { sessionPresent: true })
    third.send(qos1('a/1', 1, 'again', true))
    third.send(qos1('a/2', 2, 'late'))
    await settle(mqtt)
    await goOffline({ ...parts, connection: third })
    const fourth = await comeBack(parts)
    await fourth.grant()
    gate.open()
    await pass(5_000, 100)
    expect(mqtt.state.status).toBe('connected')
    expect(mqtt.stats().inbound).toMatchObject({ givenBack: 2, dropped: 2, running: 0 })
    fourth.send(qos1('a/3', 3))
    await settle(mqtt)
    await fourth.closed()
    await finish(parts)
  })

  it('closes the connection once for all messages that fail in the meantime', async () => {
    const parts = await subscriberOnPeer({ protocolVersion, ...KEPT })
    const fail = () => Promise.reject(new Error('poison'))
    parts.mqtt.subscribe('poison/+', fail, { onFailure: 'disconnect' })
    await parts.connection.grant()
    const ids = [1, 2, 3, 4]
    for (const id of ids) parts.connection.send(qos1(`poison/${id}`, id))
    await settle(parts.mqtt)
    const second = await comeBack(parts, { sessionPresent: true })
    for (const id of ids) second.send(qos1(`poison/${id}`, id, id, true))
    await pass(1_100, 100)
    expect(parts.session.connection.state.status).not.toBe('connected')
    const { losses } = parts.mqtt.stats().connection
    await comeBack(parts, { sessionPresent: true })
    await pass(10_000, 100)
    expect({ losses, after: parts.mqtt.stats().connection.losses }).toEqual({ losses: 2, after: 2 })
    await finish(parts)
  })

  it('is refused without a persistent session', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const register = () => parts.mqtt.subscribe('a', () => {}, { onFailure: 'disconnect' })
    expect(register).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
    expect(register).toThrow('handler of "a": onFailure "disconnect"')
    await finish(parts)
  })

  it('also gives back the later messages, and handles them once', async () => {
    const parts = await subscriberOnPeer({ protocolVersion, ...KEPT })
    const { mqtt, connection } = parts
    const ran: unknown[] = []
    let isBroken = true
    const behind = new Gate()
    const handler = async ({ payload }: { payload: unknown }) => {
      ran.push(payload)
      if (payload === 'good') return behind.open()
      await behind.pass()
      if (isBroken) throw new Error('broken')
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

  it('is refused if the Session Expiry Interval is 0', async () => {
    const options = { protocolVersion, ...KEPT, properties: { sessionExpiryInterval: 0 } }
    const parts = await subscriberOnPeer(options)
    expect(() => parts.mqtt.subscribe('a', () => {}, { onFailure: 'disconnect' })).toThrow('disconnect')
    await finish(parts)
  })
})
