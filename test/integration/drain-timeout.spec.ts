import { describe, expect, it, vi } from 'vitest'
import { eventually } from '../support/eventually.js'
import { holdClock, quiet } from '../support/held-clock.js'
import { acks, KEPT, qos1, subscriberOnPeer } from '../support/subscriber-on-peer.js'

holdClock()

const DRAIN_MS = 100

describe('a drain that exceeds its time limit in a persistent session', () => {
  it('does not acknowledge a message whose handler or retry it has aborted', async () => {
    const { session, mqtt, connection } = await subscriberOnPeer({ ...KEPT, drainTimeoutMs: DRAIN_MS })
    mqtt.subscribe('aborted', (_message, { signal }) => {
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    })
    const retries = { attempts: 1, delayMs: [60_000] }
    mqtt.subscribe('repeated', () => Promise.reject(new Error('not yet')), { retries })
    await connection.grant()
    await connection.grant()
    connection.send(qos1('aborted', 1))
    connection.send(qos1('repeated', 2))
    await eventually(() => mqtt.stats().inbound.running === 2)
    const drained = session.drain()
    await quiet()
    vi.advanceTimersByTime(DRAIN_MS)
    await drained
    await quiet(50)
    expect(acks(connection)).toEqual([])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 0, givenBack: 2, running: 0 })
    await session.close()
  })

  it('ends the loops and Observables that are started after it', async () => {
    const { session, mqtt } = await subscriberOnPeer()
    await session.drain()
    expect(await mqtt.messages('a').next()).toEqual({ done: true, value: undefined })
    let isComplete = false
    mqtt.messages$('a').subscribe({
      complete: () => {
        isComplete = true
      },
    })
    await quiet()
    expect(isComplete).toBe(true)
    await session.close()
  })
})
