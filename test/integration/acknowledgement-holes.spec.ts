import { describe, expect, it } from 'vitest'
import { deadLetter } from '../../src/index.js'
import { Gate } from '../support/gate.js'
import { holdClock } from '../support/held-clock.js'
import { comeBack, finish, goOffline, pass } from '../support/publisher-on-peer.js'
import { acks, countOf, json, KEPT, qos1, settle, subscriberOnPeer } from '../support/subscriber-on-peer.js'

holdClock()

const ignore = (): void => {}
const fail = (): never => {
  throw new Error('broken')
}

describe('no message holds back the acknowledgements of others forever', () => {
  it('a loop that is ended by a signal acknowledges the messages that it has not read', async () => {
    const controller = new AbortController()
    const parts = await subscriberOnPeer()
    const { mqtt, connection } = parts
    mqtt.messages('a', { signal: controller.signal })
    await connection.grant()
    mqtt.subscribe('b', ignore)
    await connection.grant()
    connection.send(qos1('a', 1))
    await settle(mqtt)
    controller.abort()
    connection.send(qos1('b', 2))
    await settle(mqtt)
    expect(acks(connection)).toEqual([1, 2])
    await finish(parts)
  })

  it('a loop that requests two messages at once finishes both', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection } = parts
    const messages = mqtt.messages('a')
    await connection.grant()
    const both = Promise.all([messages.next(), messages.next()])
    for (const id of [1, 2]) connection.send(qos1('a', id))
    await settle(mqtt)
    await both
    await messages.return?.()
    await settle(mqtt)
    expect(acks(connection)).toEqual([1, 2])
    await finish(parts)
  })

  it('a message whose dead letter exceeds the limit of the broker is acknowledged', async () => {
    const parts = await subscriberOnPeer({}, { properties: { maximumPacketSize: 200 } })
    const { mqtt, connection } = parts
    mqtt.subscribe('a', fail, { onFailure: deadLetter('dead') })
    await connection.grant()
    mqtt.subscribe('b', ignore)
    await connection.grant()
    connection.send(qos1('a', 1, 'x'.repeat(150)))
    connection.send(qos1('b', 2))
    await settle(mqtt)
    await pass(600_000, 1_000)
    expect(acks(connection)).toEqual([1, 2])
    await finish(parts)
  })

  it('a QoS 0 message of a handler with manual acknowledgement ends with its run', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection } = parts
    mqtt.subscribe('a', ignore, { ack: 'manual' })
    await connection.grant()
    for (let value = 0; value < 10; value += 1) connection.send(json('a', value))
    await settle(mqtt)
    expect(mqtt.stats().inbound).toMatchObject({ handled: 10, running: 0 })
    await finish(parts)
  })
})

describe('an order function that throws', () => {
  it.each([0, 1] as const)('fails one message at QoS %i, not the connection', async qos => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection, session } = parts
    mqtt.subscribe('a', ignore, { order: fail })
    await connection.grant()
    connection.send(qos === 0 ? json('a', 1) : qos1('a', 1))
    await settle(mqtt)
    expect(session.connection.state.status).toBe('connected')
    expect(mqtt.stats().inbound).toMatchObject({ received: 1, handled: 1, waiting: 0 })
    await finish(parts)
  })
})

describe('a subscription', () => {
  it('that is removed delivers no more messages to its handler', async () => {
    const parts = await subscriberOnPeer({ inbound: { concurrency: 1 } })
    const { mqtt, connection } = parts
    const gate = new Gate()
    const seen: unknown[] = []
    const subscription = mqtt.subscribe('a', ({ payload }) => {
      seen.push(payload)
      return gate.pass()
    })
    await connection.grant()
    for (const id of [1, 2]) connection.send(qos1('a', id))
    await settle(mqtt)
    subscription.unsubscribe()
    gate.open()
    await settle(mqtt)
    expect(seen).toEqual([1])
    expect(acks(connection)).toEqual([1, 2])
    await finish(parts)
  })

  it('that is added again is not unsubscribed after a reconnect', async () => {
    const parts = await subscriberOnPeer(KEPT)
    const { mqtt, connection } = parts
    mqtt.subscribe('a', ignore).unsubscribe()
    await connection.grant()
    mqtt.subscribe('a', ignore)
    await settle(mqtt)
    await connection.find('unsubscribe')
    await connection.grant()
    await settle(mqtt)
    await goOffline(parts)
    const second = await comeBack(parts, { sessionPresent: true })
    await settle(mqtt)
    expect(countOf(second, 'unsubscribe')).toBe(0)
    await finish(parts)
  })

  it.each(['before', 'after'])('rejects whenGranted() that is called %s the close', async when => {
    const parts = await subscriberOnPeer()
    const subscription = parts.mqtt.subscribe('a', ignore)
    let state = 'pending'
    const ask = (): void => {
      subscription.whenGranted().then(
        () => {
          state = 'granted'
        },
        (error: { code: string }) => {
          state = error.code
        },
      )
    }
    if (when === 'before') ask()
    await finish(parts)
    if (when === 'after') ask()
    await settle(parts.mqtt)
    expect(state).toMatch(/^(CONNECTION_CLOSED|SUBSCRIBE_REFUSED)$/)
  })
})
