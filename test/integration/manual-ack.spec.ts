import { describe, expect, it } from 'vitest'
import type { MqttRun } from '../../src/client/inbound/subscriber.js'
import { holdClock } from '../support/held-clock.js'
import { finish, pass } from '../support/publisher-on-peer.js'
import { acks, json, qos1, settle, subscriberOnPeer, VERSIONS } from '../support/subscriber-on-peer.js'

holdClock()

type Options = Parameters<Awaited<ReturnType<typeof subscriberOnPeer>>['mqtt']['subscribe']>[2]

async function manual(
  protocolVersion: 4 | 5,
  options: Options = {},
  work: (run: MqttRun) => unknown = () => {},
) {
  const parts = await subscriberOnPeer({ protocolVersion, inbound: { concurrency: 1 } })
  const runs: MqttRun[] = []
  const seen: unknown[] = []
  parts.mqtt.subscribe(
    'a',
    ({ payload }, run) => {
      seen.push(payload)
      runs.push(run)
      return work(run)
    },
    { ack: 'manual', ...options },
  )
  await parts.connection.grant()
  return { ...parts, runs, seen }
}

describe.each(VERSIONS)('MQTT %i: ack "manual"', protocolVersion => {
  it('acknowledges when ack() is called after the handler has returned, in order of arrival', async () => {
    const parts = await manual(protocolVersion)
    const { mqtt, connection, runs, seen } = parts
    for (const id of [1, 2, 3]) connection.send(qos1('a', id))
    await settle(mqtt)
    // The next one begins when the handler returns, and not when it acknowledges.
    expect(seen).toEqual([1, 2, 3])
    expect(acks(connection)).toEqual([])
    expect(mqtt.stats().inbound).toMatchObject({ running: 3, handled: 0 })
    runs[1]?.ack()
    await settle(mqtt)
    expect(acks(connection)).toEqual([])
    expect(mqtt.stats().inbound).toMatchObject({ running: 2, handled: 1 })
    runs[0]?.ack()
    await settle(mqtt)
    expect(acks(connection)).toEqual([1, 2])
    runs[2]?.ack()
    await settle(mqtt)
    expect(acks(connection)).toEqual([1, 2, 3])
    await finish(parts)
  })

  it('accepts ack() before the handler returns, and twice', async () => {
    const parts = await manual(protocolVersion, {}, run => {
      run.ack()
      run.ack()
    })
    const { mqtt, connection } = parts
    connection.send(qos1('a', 1))
    connection.send(qos1('a', 2))
    await settle(mqtt)
    expect(acks(connection)).toEqual([1, 2])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 2, running: 0 })
    await finish(parts)
  })

  it('has no effect on ack() of a handler without the option', async () => {
    const parts = await manual(protocolVersion, { ack: 'auto' }, run => {
      run.ack()
      throw new Error('broken')
    })
    const { mqtt, connection } = parts
    connection.send(qos1('a', 1))
    await settle(mqtt)
    expect(acks(connection)).toEqual([1])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 1 })
    await finish(parts)
  })

  it('applies the policy to a failed handler, whether it called ack() or not', async () => {
    const parts = await manual(protocolVersion, {}, () => {
      throw new Error('broken')
    })
    const { mqtt, connection } = parts
    connection.send(qos1('a', 1))
    await settle(mqtt)
    expect(acks(connection)).toEqual([1])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 1, running: 0 })
    await finish(parts)
  })

  it('fails the run if ack() is not called in time', async () => {
    const parts = await manual(protocolVersion, { timeoutMs: 100 })
    const { mqtt, connection, runs } = parts
    connection.send(qos1('a', 1))
    await settle(mqtt)
    expect(acks(connection)).toEqual([])
    await pass(100)
    await settle(mqtt)
    expect(acks(connection)).toEqual([1])
    runs[0]?.ack()
    await settle(mqtt)
    expect(acks(connection)).toEqual([1])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 1 })
    await finish(parts)
  })

  it('does not need ack() for QoS 0, but accepts it', async () => {
    const parts = await manual(protocolVersion, {}, run => run.ack())
    const { mqtt, connection } = parts
    connection.send(json('a', 1))
    await settle(mqtt)
    expect(acks(connection)).toEqual([])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, running: 0 })
    await finish(parts)
  })
})
