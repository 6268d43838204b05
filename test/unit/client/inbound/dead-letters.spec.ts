import { describe, expect, it } from 'vitest'
import { Hook, type Notice } from '../../../../src/client/events.js'
import { type DeadLetterPublish, DeadLetters } from '../../../../src/client/inbound/dead-letters.js'
import { MqttError } from '../../../../src/core/errors.js'
import { HeldBytes } from '../../../../src/core/inbound/open-messages.js'
import type { PublishOutcome } from '../../../../src/core/outbound/publish-outcome.js'
import { holdClock } from '../../../support/held-clock.js'
import { pass } from '../../../support/publisher-on-peer.js'
import { message } from '../../../support/session-on-peer.js'

holdClock()

const ACKNOWLEDGED: PublishOutcome = { status: 'acknowledged', reasonCode: 0 }
const REFUSED: PublishOutcome = { status: 'refused', reasonCode: 0x87 }

/** Dead letters whose attempts have the given outcomes, one after the other; the last outcome repeats. */
function lettersWith(...responses: readonly (PublishOutcome | Error)[]) {
  const published: DeadLetterPublish[] = []
  const refusals: string[] = []
  const notice = new Hook<Notice>(() => {})
  notice.listen(told => {
    if (told.type === 'dead-letter-refused')
      refusals.push(`${refusals.length + 1} ${told.topic}: ${told.why}`)
  })
  const letters = new DeadLetters({
    publish: async letter => {
      const response = responses[Math.min(published.length, responses.length - 1)] ?? ACKNOWLEDGED
      published.push(letter)
      if (response instanceof Error) throw response
      return response
    },
    version: () => 5,
    maximumQoS: () => 2,
    notice,
    held: new HeldBytes(1_000, { count: 0, bytes: 0 }),
  })
  let state = 'pending'
  const publish = async (qos: 0 | 1 = 1): Promise<void> => {
    const packet = message('in', { qos })
    letters.publish({ topic: 'dead', packet, pattern: 'in', reason: 'x', attempts: 1 }).then(
      () => {
        state = 'published'
      },
      (error: { code: string }) => {
        state = error.code
      },
    )
    await pass(1)
  }
  return { letters, published, refusals, publish, state: () => state }
}

const turn = () => pass(1)

describe('DeadLetters', () => {
  it('are published when the broker has acknowledged', async () => {
    const { publish, published, refusals, state } = lettersWith(ACKNOWLEDGED)
    await publish()
    expect(published).toHaveLength(1)
    expect(refusals).toEqual([])
    expect(state()).toBe('published')
  })

  it.each([
    [REFUSED, 'the broker refused it: 0x87 Not authorized'],
    [{ status: 'dropped', reason: 'queue-full' } as const, 'dropped: queue-full'],
    [new Error('too large'), 'too large'],
  ])('are retried after %j', async (response, why) => {
    const { publish, published, refusals, state } = lettersWith(response, response, ACKNOWLEDGED)
    await publish()
    await pass(1_000)
    expect(published).toHaveLength(2)
    await pass(2_000)
    expect(published).toHaveLength(3)
    expect(refusals).toEqual([
      `1 dead: ${why}; the message waits until it can`,
      `2 dead: ${why}; the message waits until it can`,
    ])
    expect(state()).toBe('published')
  })

  it('are retried forever, with at most 30 seconds between two attempts', async () => {
    const { letters, publish, published, state } = lettersWith(REFUSED)
    await publish()
    await pass(3_600_000, 1_000)
    expect(published.length).toBeGreaterThan(115)
    expect(state()).toBe('pending')
    letters.stop()
    await turn()
    expect(state()).toBe('CONNECTION_CLOSED')
  })

  it('at QoS 0 are discarded after three attempts', async () => {
    const { publish, published, refusals, state } = lettersWith(REFUSED)
    await publish(0)
    await pass(60_000, 1_000)
    expect(published).toHaveLength(3)
    expect(refusals.at(-1)).toBe('3 dead: the broker refused it: 0x87 Not authorized; the message is lost')
    expect(state()).toBe('CONNECTION_CLOSED')
  })

  it('that are larger than the broker allows are reported once, and not retried', async () => {
    const { publish, published, refusals, state } = lettersWith(
      new MqttError('PACKET_TOO_LARGE', 'too large'),
    )
    await publish()
    await pass(60_000, 1_000)
    expect(published).toHaveLength(1)
    expect(refusals).toEqual(['1 dead: it is larger than the broker allows; the message is lost'])
    expect(state()).toBe('PACKET_TOO_LARGE')
  })

  it('end with the client', async () => {
    const { letters, publish, published, state } = lettersWith(REFUSED, REFUSED)
    await publish()
    letters.stop()
    await turn()
    expect(state()).toBe('CONNECTION_CLOSED')
    expect(published).toHaveLength(2)
  })
})
