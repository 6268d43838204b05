import { describe, expect, it } from 'vitest'
import type { MqttRun } from '../../src/client/inbound/subscriber.js'
import type { HandlerOptions } from '../../src/index.js'
import { Gate } from '../support/gate.js'
import { holdClock } from '../support/held-clock.js'
import { finish, pass } from '../support/publisher-on-peer.js'
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

const never = () => new Promise<never>(() => {})

async function handling(
  parts: SubscriberOnPeer,
  pattern: string,
  handler: (payload: unknown, run: MqttRun) => unknown,
  options: HandlerOptions = {},
): Promise<void> {
  parts.mqtt.subscribe(pattern, ({ payload }, run) => handler(payload, run), options)
  await parts.connection.grant()
}

describe.each(VERSIONS)('MQTT %i: a handler that exceeds its time limit', protocolVersion => {
  it('has its signal aborted, and its message counts as failed', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const { mqtt, connection, log } = parts
    const signals: AbortSignal[] = []
    await handling(
      parts,
      'a',
      (_payload, run) => {
        signals.push(run.signal)
        return never()
      },
      { timeoutMs: 100 },
    )
    connection.send(qos1('a', 1))
    await settle(mqtt)
    await pass(90)
    expect(signals.map(signal => signal.aborted)).toEqual([false])
    expect(acks(connection)).toEqual([])
    await pass(10)
    await settle(mqtt)
    expect(signals[0]?.reason).toMatchObject({ code: 'TIMEOUT' })
    expect(acks(connection)).toEqual([1])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 1, running: 0 })
    expect(log.visible.at(-1)).toBe(
      'the handler of "a" failed for a message on "a": the handler of "a" did not finish within 100 ms',
    )
    await finish(parts)
  })

  it('does not block other messages, nor the next one of its topic', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const { mqtt, connection } = parts
    const seen: unknown[] = []
    await handling(
      parts,
      't/+',
      payload => {
        seen.push(payload)
        return payload === 'stuck' ? never() : undefined
      },
      { timeoutMs: 100 },
    )
    connection.send(qos1('t/1', 1, 'stuck'))
    connection.send(qos1('t/1', 2, 'behind'))
    connection.send(qos1('t/2', 3, 'beside'))
    await settle(mqtt)
    expect(seen).toEqual(['stuck', 'beside'])
    expect(acks(connection)).toEqual([])
    await pass(100)
    await settle(mqtt)
    expect(seen).toEqual(['stuck', 'beside', 'behind'])
    expect(acks(connection)).toEqual([1, 2, 3])
    await finish(parts)
  })

  it('receives an aborted signal if it reads the signal after the limit', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const { mqtt, connection } = parts
    const runs: MqttRun[] = []
    await handling(
      parts,
      'a',
      (_payload, run) => {
        runs.push(run)
        return never()
      },
      { timeoutMs: 50 },
    )
    connection.send(json('a', 1))
    await settle(mqtt)
    await pass(50)
    expect(runs[0]?.signal.aborted).toBe(true)
    await finish(parts)
  })

  it('leaves no timer if it ends in time, and its signal is not aborted', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const { mqtt, connection } = parts
    const gate = new Gate()
    const signals: AbortSignal[] = []
    await handling(
      parts,
      'a',
      (_payload, run) => {
        signals.push(run.signal)
        return gate.pass()
      },
      { timeoutMs: 50 },
    )
    connection.send(json('a', 1))
    await gate.reached()
    gate.open()
    await settle(mqtt)
    await pass(100)
    expect(signals.map(signal => signal.aborted)).toEqual([false])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 0 })
    await finish(parts)
  })

  it('without a limit only blocks its own topic, and close() does not wait for it', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const { mqtt, connection } = parts
    const signals: AbortSignal[] = []
    await handling(parts, 't/+', (payload, run) => {
      if (payload !== 'stuck') return undefined
      signals.push(run.signal)
      return never()
    })
    connection.send(qos1('t/1', 1, 'stuck'))
    connection.send(qos1('t/2', 2, 'beside'))
    await settle(mqtt)
    await pass(86_400_000)
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, running: 1 })
    expect(acks(connection)).toEqual([])
    await finish(parts)
    expect(signals[0]?.reason).toMatchObject({ code: 'CONNECTION_CLOSED' })
  })
})

describe.each(VERSIONS)('MQTT %i: onFailure "ack"', protocolVersion => {
  it.each([
    [
      'throws at once',
      () => {
        throw new Error('broken')
      },
      'broken',
    ],
    ['rejects', () => Promise.reject(new Error('broken')), 'broken'],
    ['rejects with a text', () => Promise.reject('no error at all'), 'no error at all'],
    ['rejects with nothing', () => Promise.reject(), 'unknown cause'],
    ['rejects with null', () => Promise.reject(null), 'unknown cause'],
    ['rejects with an object', () => Promise.reject({ code: 7 }), 'unknown cause'],
  ])('a handler that %s: logged, counted, acknowledged', async (_how, handler, text) => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const { mqtt, connection, log } = parts
    await handling(parts, 'a', handler)
    connection.send(qos1('a', 5))
    await settle(mqtt)
    expect(acks(connection)).toEqual([5])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 1, deadLettered: 0 })
    expect(log.visible.at(-1)).toContain(`failed for a message on "a": ${text}`)
    await finish(parts)
  })
})

describe.each(VERSIONS)('MQTT %i: retries', protocolVersion => {
  it('repeat a run after each delay, keep its place in the order, and pass the number of the attempt', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const { mqtt, connection } = parts
    const ran: string[] = []
    await handling(
      parts,
      'a',
      (payload, { attempt }) => {
        ran.push(`${payload}:${attempt}`)
        if (payload === 'bad' && attempt < 3) throw new Error('not yet')
      },
      { retries: { attempts: 3, delayMs: [100, 200] } },
    )
    connection.send(qos1('a', 1, 'bad'))
    connection.send(qos1('a', 2, 'good'))
    await settle(mqtt)
    await pass(90)
    expect(ran).toEqual(['bad:1'])
    expect(mqtt.stats().inbound).toMatchObject({ running: 1, waiting: 1 })
    await pass(10)
    expect(ran).toEqual(['bad:1', 'bad:2'])
    await pass(190)
    expect(ran).toEqual(['bad:1', 'bad:2'])
    expect(acks(connection)).toEqual([])
    await pass(10)
    await settle(mqtt)
    expect(ran).toEqual(['bad:1', 'bad:2', 'bad:3', 'good:1'])
    expect(acks(connection)).toEqual([1, 2])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 2, failed: 0 })
    await finish(parts)
  })

  it('end with the last one, and the message counts as failed once', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const { mqtt, connection, log } = parts
    let runs = 0
    const fail = () => {
      runs += 1
      throw new Error(`failure ${runs}`)
    }
    await handling(parts, 'a', fail, { retries: { attempts: 2, delayMs: [10] } })
    connection.send(qos1('a', 1))
    await pass(1_000, 10)
    await settle(mqtt)
    expect(runs).toBe(3)
    expect(acks(connection)).toEqual([1])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 1 })
    expect(log.visible.filter(line => line.includes('failure '))).toHaveLength(1)
    expect(log.visible.at(-1)).toContain('failure 3')
    await finish(parts)
  })

  it('give each run its own time limit and signal', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const { mqtt, connection } = parts
    const signals: AbortSignal[] = []
    await handling(
      parts,
      'a',
      (_payload, { signal, attempt }) => {
        signals.push(signal)
        return attempt === 1 ? never() : undefined
      },
      { timeoutMs: 50, retries: { attempts: 1, delayMs: [10] } },
    )
    connection.send(qos1('a', 1))
    await settle(mqtt)
    await pass(60, 10)
    await settle(mqtt)
    expect(signals.map(signal => signal.aborted)).toEqual([true, false])
    expect(acks(connection)).toEqual([1])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 0 })
    await finish(parts)
  })

  it('end with the application: no run starts after a close', async () => {
    const parts = await subscriberOnPeer({ protocolVersion })
    const { mqtt, connection } = parts
    let runs = 0
    const fail = () => {
      runs += 1
      throw new Error('broken')
    }
    await handling(parts, 'a', fail, { retries: { attempts: 3, delayMs: [60_000] } })
    connection.send(qos1('a', 1))
    await settle(mqtt)
    await finish(parts)
    await pass(60_000)
    expect(runs).toBe(1)
  })
})
