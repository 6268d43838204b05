import * as v from 'valibot'
import { describe, expect, it, vi } from 'vitest'
import type { MqttMessages } from '../../src/client/inbound/subscriber.js'
import { defineTopic } from '../../src/client/index.js'
import { holdClock } from '../support/held-clock.js'
import { comeBack, finish, goOffline } from '../support/publisher-on-peer.js'
import {
  acks,
  countOf,
  json,
  KEPT,
  qos1,
  type SubscriberOnPeer,
  settle,
  subscriberOnPeer,
} from '../support/subscriber-on-peer.js'

holdClock()

/** A loop that takes what comes, and how it ended. */
function consume(messages: MqttMessages<unknown>, until: unknown = undefined) {
  const loop: { readonly seen: unknown[]; end: string } = { seen: [], end: 'running' }
  const run = async (): Promise<void> => {
    for await (const { payload } of messages) {
      loop.seen.push(payload)
      if (payload === until) break
    }
  }
  run().then(
    () => {
      loop.end = 'ended'
    },
    (error: unknown) => {
      loop.end = String(error)
    },
  )
  return loop
}

async function looping(options: Parameters<typeof subscriberOnPeer>[0] = {}, limits = {}) {
  const parts = await subscriberOnPeer(options)
  const messages = parts.mqtt.messages('a', limits)
  await parts.connection.grant()
  return { ...parts, messages }
}

function deliver({ connection }: SubscriberOnPeer, ...values: readonly unknown[]): void {
  for (const value of values) connection.send(json('a', value))
}

describe('messages', () => {
  it('arrive in order, and each of several loops receives all of them', async () => {
    const parts = await looping()
    const loops = [consume(parts.messages), consume(parts.mqtt.messages('a'))]
    deliver(parts, 1, 2, 3)
    await settle(parts.mqtt)
    expect(loops.map(({ seen }) => seen)).toEqual([
      [1, 2, 3],
      [1, 2, 3],
    ])
    expect(countOf(parts.connection, 'subscribe')).toBe(1)
    await finish(parts)
  })

  it('continue after a reconnect', async () => {
    const parts = await looping()
    const loop = consume(parts.messages)
    deliver(parts, 1)
    await settle(parts.mqtt)
    await goOffline(parts)
    const second = await comeBack(parts)
    await second.grant()
    second.send(json('a', 2))
    await settle(parts.mqtt)
    expect(loop).toEqual({ seen: [1, 2], end: 'running' })
    await finish(parts)
    await settle(parts.mqtt)
    expect(loop.end).toBe('ended')
  })

  it('a payload that cannot be decoded only fails its message, and the loop continues', async () => {
    const parts = await looping()
    const loop = consume(parts.messages)
    parts.connection.send({ ...qos1('a', 1), payload: '{"half":' })
    parts.connection.send(qos1('a', 2, 'good'))
    await settle(parts.mqtt)
    expect(loop).toEqual({ seen: ['good'], end: 'running' })
    expect(parts.mqtt.stats().inbound).toMatchObject({ handled: 2, failed: 1 })
    await finish(parts)
  })

  it.each([
    ['limit', 0],
    ['limit', 1.5],
    ['overflow', 'latest'],
    ['signal', 'no'],
    ['qos', 3],
  ])('with %s: %j are refused', async (name, value) => {
    const parts = await subscriberOnPeer()
    const call = (): unknown => Reflect.apply(parts.mqtt.messages, parts.mqtt, ['a', { [name]: value }])
    expect(call).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
    await settle(parts.mqtt)
    expect(countOf(parts.connection, 'subscribe')).toBe(0)
    await finish(parts)
  })
})

describe('a QoS 1 message of a loop', () => {
  it('is acknowledged when the loop requests the next one', async () => {
    const parts = await looping()
    const { mqtt, messages, connection } = parts
    connection.send(qos1('a', 1))
    connection.send(qos1('a', 2))
    await settle(mqtt)
    expect(acks(connection)).toEqual([])
    expect(await messages.next()).toMatchObject({ done: false, value: { payload: 1, qos: 1 } })
    await settle(mqtt)
    expect(acks(connection)).toEqual([])
    expect(await messages.next()).toMatchObject({ value: { payload: 2 } })
    await settle(mqtt)
    expect(acks(connection)).toEqual([1])
    await messages.return?.()
    await settle(mqtt)
    expect(acks(connection)).toEqual([1, 2])
    await finish(parts)
  })

  it('that no loop has read is given back at the close of a persistent session', async () => {
    const parts = await looping(KEPT)
    const { mqtt, messages, connection } = parts
    for (const id of [1, 2, 3]) connection.send(qos1('a', id))
    await settle(mqtt)
    await messages.next()
    await finish(parts)
    expect(await messages.next()).toEqual({ done: true, value: undefined })
    await settle(mqtt)
    expect(acks(connection)).toEqual([])
    expect(mqtt.stats().inbound).toMatchObject({ received: 3, givenBack: 3, running: 0 })
  })

  it('that is redelivered while the loop handles it is not passed to it twice', async () => {
    const parts = await looping(KEPT)
    const { mqtt, messages, connection } = parts
    connection.send(qos1('a', 1))
    await settle(mqtt)
    await messages.next()
    await goOffline(parts)
    const second = await comeBack(parts, { sessionPresent: true })
    second.send(qos1('a', 1, 1, true))
    second.send(qos1('a', 2))
    await settle(mqtt)
    expect(await messages.next()).toMatchObject({ value: { payload: 2 } })
    await settle(mqtt)
    expect(acks(second)).toEqual([1])
    await messages.return?.()
    await finish(parts)
  })
})

describe('the end of a loop', () => {
  it('by break leaves no subscription, and acknowledges the messages of the loop', async () => {
    const parts = await looping()
    const loop = consume(parts.messages, 2)
    for (const id of [1, 2, 3]) parts.connection.send(qos1('a', id))
    await settle(parts.mqtt)
    expect(loop).toEqual({ seen: [1, 2], end: 'ended' })
    expect(countOf(parts.connection, 'unsubscribe')).toBe(1)
    expect(acks(parts.connection)).toEqual([1, 2, 3])
    expect(parts.mqtt.stats().inbound).toMatchObject({ handled: 3, waiting: 0, running: 0 })
    expect(await parts.messages.next()).toEqual({ done: true, value: undefined })
    await finish(parts)
  })

  it('by a signal while it waits is not an error', async () => {
    const controller = new AbortController()
    const parts = await looping({}, { signal: controller.signal })
    const loop = consume(parts.messages)
    deliver(parts, 1)
    await settle(parts.mqtt)
    controller.abort(new Error('enough'))
    await settle(parts.mqtt)
    expect(loop).toEqual({ seen: [1], end: 'ended' })
    expect(countOf(parts.connection, 'unsubscribe')).toBe(1)
    await finish(parts)
  })

  it('when the connection stops for good', async () => {
    const parts = await looping()
    const { mqtt, messages, connection } = parts
    const loop = consume(messages)
    const observed = { end: 'running' }
    mqtt.messages$('b').subscribe({
      complete: () => {
        observed.end = 'ended'
      },
    })
    deliver(parts, 1)
    await settle(mqtt)
    connection.send({ cmd: 'disconnect', reasonCode: 0x8e })
    await settle(mqtt)
    expect(mqtt.state.status).toBe('closed')
    expect(loop).toEqual({ seen: [1], end: 'ended' })
    expect(observed.end).toBe('ended')
    await finish(parts)
  })

  it('by a signal that is already aborted', async () => {
    const parts = await subscriberOnPeer()
    const loop = consume(parts.mqtt.messages('a', { signal: AbortSignal.abort() }))
    await settle(parts.mqtt)
    expect(loop).toEqual({ seen: [], end: 'ended' })
    expect(parts.mqtt.stats().subscriptions).toEqual({
      granted: 0,
      refused: 0,
      pending: 0,
      unsubscribesRefused: 0,
    })
    await finish(parts)
  })

  it('by one signal for many loops, and Node.js warns of no leak', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockReturnValue()
    const controller = new AbortController()
    const parts = await subscriberOnPeer()
    const { signal } = controller
    const loops = Array.from({ length: 20 }, () => consume(parts.mqtt.messages('a', { signal })))
    controller.abort()
    await settle(parts.mqtt)
    expect(loops).toEqual(loops.map(() => ({ seen: [], end: 'ended' })))
    expect(warned).not.toHaveBeenCalled()
    warned.mockRestore()
    await finish(parts)
  })

  it('of one loop does not end the others', async () => {
    const controller = new AbortController()
    const parts = await looping({}, { signal: controller.signal })
    const other = consume(parts.mqtt.messages('a'))
    controller.abort()
    deliver(parts, 1)
    await settle(parts.mqtt)
    expect(other).toEqual({ seen: [1], end: 'running' })
    expect(countOf(parts.connection, 'unsubscribe')).toBe(0)
    await finish(parts)
  })

  it('comes with the close of the application', async () => {
    const parts = await looping()
    const loop = consume(parts.messages)
    await finish(parts)
    await settle(parts.mqtt)
    expect(loop.end).toBe('ended')
  })
})

describe('QoS 0 messages that a loop does not read', () => {
  it.each([
    ['drop-oldest', [2, 3]],
    ['drop-newest', [1, 2]],
  ] as const)('%s: their number stays within the limit', async (overflow, kept) => {
    const parts = await looping({}, { limit: 2, overflow })
    deliver(parts, 1, 2, 3)
    await settle(parts.mqtt)
    expect(parts.messages.dropped).toBe(1)
    const loop = consume(parts.messages)
    await settle(parts.mqtt)
    expect(loop.seen).toEqual(kept)
    deliver(parts, 4, 5)
    await settle(parts.mqtt)
    expect(loop.seen).toEqual([...kept, 4, 5])
    expect(parts.messages.dropped).toBe(1)
    await finish(parts)
  })

  it('do not replace those of QoS 1', async () => {
    const parts = await looping({}, { limit: 1 })
    parts.connection.send(qos1('a', 1, 'one'))
    deliver(parts, 2, 3)
    parts.connection.send(qos1('a', 4, 'four'))
    await settle(parts.mqtt)
    const loop = consume(parts.messages)
    await settle(parts.mqtt)
    expect(loop.seen).toEqual(['one', 3, 'four'])
    expect(parts.messages.dropped).toBe(1)
    expect(acks(parts.connection)).toEqual([1, 4])
    await finish(parts)
  })
})

describe('messages$', () => {
  it('has a handler per subscriber, which is removed with it, and completes at the close', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection } = parts
    const messages = mqtt.messages$<number>('a')
    await settle(mqtt)
    expect(countOf(connection, 'subscribe')).toBe(0)
    const seen: string[] = []
    const note = (name: string) => ({
      next: ({ payload }: { payload: number }) => seen.push(`${name}${payload}`),
      complete: () => seen.push(`${name} ended`),
    })
    const first = messages.subscribe(note('first '))
    await connection.grant()
    messages.subscribe(note('second '))
    connection.send(qos1('a', 1))
    await settle(mqtt)
    expect(seen).toEqual(['first 1', 'second 1'])
    expect(acks(connection)).toEqual([1])
    first.unsubscribe()
    connection.send(qos1('a', 2))
    await settle(mqtt)
    expect(seen).toEqual(['first 1', 'second 1', 'second 2'])
    await finish(parts)
    expect(seen.at(-1)).toBe('second  ended')
  })

  it('of a contract emits the output of its schema with the parameters, and no invalid message', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection, log } = parts
    const schema = v.object({ at: v.pipe(v.string(), v.isoTimestamp(), v.toDate()) })
    const seen: [device: string, at: Date][] = []
    const errors: unknown[] = []
    const subscription = mqtt.messages$(defineTopic('devices/+deviceId/log', { schema, qos: 1 })).subscribe({
      next: ({ params, payload }) => seen.push([params.deviceId, payload.at]),
      error: error => errors.push(error),
    })
    await connection.grant()
    connection.send(json('devices/7/log', { at: 'today' }, { qos: 1, messageId: 1 }))
    connection.send(json('devices/8/log', { at: '2026-01-02T03:04:05.000Z' }, { qos: 1, messageId: 2 }))
    await settle(mqtt)
    expect(seen).toEqual([['8', new Date('2026-01-02T03:04:05.000Z')]])
    expect(errors).toEqual([])
    expect(acks(connection)).toEqual([1, 2])
    expect(mqtt.stats().inbound).toMatchObject({ received: 2, handled: 2, failed: 1 })
    expect(log.visible.at(-1)).toMatch(/the payload on "devices\/7\/log" is not valid: at: /)
    subscription.unsubscribe()
    await finish(parts)
  })

  it('of something else than a pattern emits an error', async () => {
    const parts = await subscriberOnPeer()
    const errors: unknown[] = []
    const source: unknown = ['a', 'b']
    Reflect.apply(parts.mqtt.messages$, parts.mqtt, [source]).subscribe({
      error: (error: unknown) => errors.push(error),
    })
    expect(errors).toMatchObject([{ code: 'INVALID_TOPIC_FILTER' }])
    await finish(parts)
  })
})

it('a message that a loop has dropped is logged, and counted once for several loops', async () => {
  const parts = await looping({}, { limit: 2 })
  const other = parts.mqtt.messages('a', { limit: 2, overflow: 'drop-newest' })
  deliver(parts, ...Array.from({ length: 10 }, (_value, index) => index))
  await settle(parts.mqtt)
  expect([parts.messages.dropped, other.dropped]).toEqual([8, 8])
  // Of ten messages the newest two wait in one loop, the oldest two in the other: each has lost a loop.
  expect(parts.mqtt.stats().inbound).toMatchObject({ received: 10, handled: 0, dropped: 10 })
  expect(parts.log.visible.join()).toContain('dropped')
  await finish(parts)
})
