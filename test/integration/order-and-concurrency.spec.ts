import { describe, expect, it } from 'vitest'
import type { HandlerOptions } from '../../src/index.js'
import { Gate } from '../support/gate.js'
import { holdClock } from '../support/held-clock.js'
import { finish } from '../support/publisher-on-peer.js'
import {
  acks,
  json,
  qos1,
  type SubscriberOnPeer,
  settle,
  subscriberOnPeer,
  VERSIONS,
} from '../support/subscriber-on-peer.js'

holdClock()

/** A handler whose runs the test ends one by one. */
class Held {
  readonly began: string[] = []
  private readonly gates: Gate[] = []

  readonly handler = ({ payload }: { payload: unknown }): Promise<void> => {
    const gate = new Gate()
    this.began.push(String(payload))
    this.gates.push(gate)
    return gate.pass()
  }

  /** Ends the oldest unfinished run. */
  end(): void {
    this.gates.shift()?.open()
  }

  endAll(): void {
    for (const gate of this.gates.splice(0)) gate.open()
  }
}

async function held(parts: SubscriberOnPeer, pattern: string, options: HandlerOptions = {}): Promise<Held> {
  const handler = new Held()
  parts.mqtt.subscribe(pattern, handler.handler, options)
  await parts.connection.grant()
  return handler
}

/** Sends messages such as "a1 b2": the topic and a number. */
function deliver({ connection }: SubscriberOnPeer, text: string, prefix = ''): void {
  for (const word of text.split(' ')) connection.send(json(`${prefix}${word.slice(0, 1)}`, word))
}

describe('concurrency', () => {
  it('of a handler limits its runs, and does not affect the others', async () => {
    const parts = await subscriberOnPeer()
    const one = await held(parts, 'one/+', { concurrency: 2 })
    const other = await held(parts, 'other/+')
    deliver(parts, 'a1 b2 c3 d4', 'one/')
    deliver(parts, 'a5 b6 c7', 'other/')
    await settle(parts.mqtt)
    expect(one.began).toEqual(['a1', 'b2'])
    expect(other.began).toEqual(['a5', 'b6', 'c7'])
    expect(parts.mqtt.stats().inbound).toMatchObject({ running: 5, waiting: 2 })
    one.end()
    await settle(parts.mqtt)
    expect(one.began).toEqual(['a1', 'b2', 'c3'])
    one.endAll()
    await settle(parts.mqtt)
    expect(one.began).toEqual(['a1', 'b2', 'c3', 'd4'])
    await finish(parts)
  })

  it('of the connection limits all handlers together', async () => {
    const parts = await subscriberOnPeer({ inbound: { concurrency: 3 } })
    const one = await held(parts, 'one/+', { concurrency: 10 })
    const other = await held(parts, 'other/+')
    deliver(parts, 'a1 b2', 'one/')
    deliver(parts, 'a3 b4', 'other/')
    await settle(parts.mqtt)
    expect([...one.began, ...other.began]).toEqual(['a1', 'b2', 'a3'])
    expect(parts.mqtt.stats().inbound).toMatchObject({ running: 3, waiting: 1 })
    one.end()
    await settle(parts.mqtt)
    expect(other.began).toEqual(['a3', 'b4'])
    await finish(parts)
  })

  it('is not consumed by a loop that waits for its consumer', async () => {
    const parts = await subscriberOnPeer({ inbound: { concurrency: 1, maxInFlight: 10 } })
    const messages = parts.mqtt.messages('loop/+')
    await parts.connection.grant()
    const other = await held(parts, 'other/+')
    for (let id = 1; id <= 5; id += 1) parts.connection.send(qos1('loop/a', id))
    deliver(parts, 'a1', 'other/')
    await settle(parts.mqtt)
    expect(other.began).toEqual(['a1'])
    await messages.return?.()
    await finish(parts)
  })
})

describe('order', () => {
  it('"topic" handles the messages of one topic one after the other, and different topics concurrently', async () => {
    const parts = await subscriberOnPeer()
    const handler = await held(parts, '+')
    deliver(parts, 'a1 a2 b3 a4')
    await settle(parts.mqtt)
    expect(handler.began).toEqual(['a1', 'b3'])
    handler.endAll()
    await settle(parts.mqtt)
    expect(handler.began).toEqual(['a1', 'b3', 'a2'])
    await finish(parts)
  })

  it('"none" handles all messages concurrently, started in order of arrival', async () => {
    const parts = await subscriberOnPeer()
    const handler = await held(parts, '+', { order: 'none', concurrency: 3 })
    deliver(parts, 'a1 a2 a3 a4')
    await settle(parts.mqtt)
    expect(handler.began).toEqual(['a1', 'a2', 'a3'])
    handler.end()
    await settle(parts.mqtt)
    expect(handler.began).toEqual(['a1', 'a2', 'a3', 'a4'])
    await finish(parts)
  })

  it('by a function: topics with the same key wait for each other', async () => {
    const parts = await subscriberOnPeer()
    const handler = await held(parts, '+', { order: topic => (topic === 'c' ? 'own' : 'shared') })
    deliver(parts, 'a1 b2 c3')
    await settle(parts.mqtt)
    expect(handler.began).toEqual(['a1', 'c3'])
    handler.end()
    await settle(parts.mqtt)
    expect(handler.began).toEqual(['a1', 'c3', 'b2'])
    await finish(parts)
  })

  it('of one handler does not affect another handler of the same messages', async () => {
    const parts = await subscriberOnPeer()
    const ordered = await held(parts, 'x/+')
    const free = await held(parts, 'x/#', { order: 'none' })
    deliver(parts, 'a1 a2', 'x/')
    await settle(parts.mqtt)
    expect([ordered.began, free.began]).toEqual([['a1'], ['a1', 'a2']])
    await finish(parts)
  })
})

describe('fairness', () => {
  it('a busy topic does not starve the others', async () => {
    const parts = await subscriberOnPeer({ inbound: { concurrency: 1 } })
    const handler = await held(parts, '+')
    deliver(parts, 'a1 a2 a3 a4 b5 c6')
    await settle(parts.mqtt)
    for (let run = 0; run < 5; run += 1) {
      handler.end()
      await settle(parts.mqtt)
    }
    expect(handler.began).toEqual(['a1', 'b5', 'c6', 'a2', 'a3', 'a4'])
    await finish(parts)
  })

  it('a busy handler does not starve the others, whatever the number of its topics', async () => {
    const parts = await subscriberOnPeer({ inbound: { concurrency: 1 } })
    const order: string[] = []
    const busy = await held(parts, 'busy/+')
    const calm = await held(parts, 'calm/+')
    deliver(parts, 'a1 b2 c3 d4', 'busy/')
    deliver(parts, 'a5 b6', 'calm/')
    await settle(parts.mqtt)
    for (let run = 0; run < 6; run += 1) {
      order.push(`${busy.began.length}-${calm.began.length}`)
      busy.end()
      calm.end()
      await settle(parts.mqtt)
    }
    expect(order).toEqual(['1-0', '1-1', '2-1', '2-2', '3-2', '4-2'])
    await finish(parts)
  })
})

describe.each(VERSIONS)('MQTT %i: several handlers of one message', protocolVersion => {
  it('each run once, and the message is acknowledged after all of them', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const all = [await held(parts, 'x/+'), await held(parts, 'x/#'), await held(parts, '#')]
    parts.connection.send(qos1('x/a', 1))
    await settle(parts.mqtt)
    expect(all.map(({ began }) => began)).toEqual([['1'], ['1'], ['1']])
    for (const handler of all) {
      expect(acks(parts.connection)).toEqual([])
      handler.end()
      await settle(parts.mqtt)
    }
    expect(acks(parts.connection)).toEqual([1])
    expect(parts.mqtt.stats().inbound).toMatchObject({ received: 1, handled: 1 })
    await finish(parts)
  })

  it('with one pattern are separate handlers with one subscription', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const first = await held(parts, 'x')
    const second = new Held()
    parts.mqtt.subscribe('x', second.handler)
    parts.connection.send(qos1('x', 1))
    await settle(parts.mqtt)
    expect([first.began, second.began]).toEqual([['1'], ['1']])
    expect(parts.connection.received.filter(({ cmd }) => cmd === 'subscribe')).toHaveLength(1)
    await finish(parts)
  })

  it('count the message as failed once, and are retried separately', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const ran: string[] = []
    const note = (name: string) => () => {
      ran.push(name)
      if (name !== 'good') throw new Error('broken')
    }
    for (const name of ['bad', 'good', 'worse']) {
      parts.mqtt.subscribe(name === 'good' ? 'x' : `${name === 'bad' ? '+' : '#'}`, note(name), {
        ...(name === 'bad' ? { retries: { attempts: 2, delayMs: [1] } } : {}),
      })
      await parts.connection.grant()
    }
    parts.connection.send(qos1('x', 1))
    for (let step = 0; step < 5; step += 1) await settle(parts.mqtt)
    expect(ran.toSorted()).toEqual(['bad', 'bad', 'bad', 'good', 'worse'])
    expect(acks(parts.connection)).toEqual([1])
    expect(parts.mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 1 })
    await finish(parts)
  })
})
