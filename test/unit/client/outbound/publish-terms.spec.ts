import { getEventListeners } from 'node:events'
import { describe, expect, it, vi } from 'vitest'
import { watchTerms } from '../../../../src/client/outbound/publishes.js'
import type { MqttError } from '../../../../src/core/errors.js'
import type { GivenUp, Publication, PublishTerms } from '../../../../src/core/outbound/outbound-message.js'
import { holdClock } from '../../../support/held-clock.js'
import { outboundMessage, recordedPublication } from '../../../support/waiting-publish.js'

holdClock()

interface Given {
  readonly publication: Publication
  readonly reason: GivenUp
  readonly cause: MqttError
}

/** A publish with these terms, and why it is given up. */
function publishWith(terms: PublishTerms) {
  const { publication } = recordedPublication(outboundMessage({ topic: 'a/b' }))
  const givenUp: Given[] = []
  watchTerms(publication, terms, (given, reason, cause) =>
    givenUp.push({ publication: given, reason, cause }),
  )
  return { publication, givenUp }
}

describe('a publish without terms', () => {
  it('has no timer', () => {
    const { publication } = publishWith({ whenBlocked: 'wait' })
    expect(vi.getTimerCount()).toBe(0)
    expect(publication.stopWatch).toBeUndefined()
  })
})

describe('a publish with timeoutMs', () => {
  it('ends at the time limit, and not before', () => {
    const { publication, givenUp } = publishWith({ timeoutMs: 700 })
    vi.advanceTimersByTime(699)
    expect(givenUp).toEqual([])
    vi.advanceTimersByTime(1)
    expect(givenUp).toMatchObject([{ reason: 'expired', cause: { code: 'TIMEOUT' } }])
    expect(givenUp[0]?.publication).toBe(publication)
    expect(givenUp[0]?.cause.message).toBe(
      'the broker did not acknowledge the publish to "a/b" within 700 ms',
    )
    // What becomes of it is for others to say.
    expect(publication.isSettled).toBe(false)
  })

  it('has no timer once it has settled', () => {
    const { publication, givenUp } = publishWith({ timeoutMs: 700 })
    publication.stopWatch?.()
    expect(vi.getTimerCount()).toBe(0)
    vi.advanceTimersByTime(10_000)
    expect(givenUp).toEqual([])
  })
})

describe('a publish with signal', () => {
  it('ends when it is aborted, with the reason', () => {
    const aborting = new AbortController()
    const { publication, givenUp } = publishWith({ signal: aborting.signal })
    expect(vi.getTimerCount()).toBe(0)
    aborting.abort('changed my mind')
    expect(givenUp).toMatchObject([
      { reason: 'aborted', cause: { code: 'ABORTED', cause: 'changed my mind' } },
    ])
    expect(givenUp[0]?.publication).toBe(publication)
  })

  it('has no listener once it has settled', () => {
    const aborting = new AbortController()
    const { publication, givenUp } = publishWith({ signal: aborting.signal, timeoutMs: 100 })
    expect(getEventListeners(aborting.signal, 'abort')).toHaveLength(1)
    publication.stopWatch?.()
    expect(getEventListeners(aborting.signal, 'abort')).toHaveLength(0)
    aborting.abort()
    vi.advanceTimersByTime(10_000)
    expect(givenUp).toEqual([])
  })
})
