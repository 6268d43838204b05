import { getEventListeners } from 'node:events'
import { describe, expect, it, vi } from 'vitest'
import { withTerms } from '../../../../src/client/outbound/publish-terms.js'
import type { MqttError } from '../../../../src/core/errors.js'
import type { GivenUp, Publication, PublishTerms } from '../../../../src/core/outbound/outbound-message.js'
import { holdClock } from '../../../support/held-clock.js'
import { outboundMessage, RecordedPublication } from '../../../support/waiting-publish.js'

holdClock()

interface Given {
  readonly publication: Publication
  readonly reason: GivenUp
  readonly cause: MqttError
}

/** A publish with these terms, what it settles with, and whether it was given up. */
function publishWith(terms: PublishTerms) {
  const promise = new RecordedPublication()
  const givenUp: Given[] = []
  const publication = withTerms(
    outboundMessage({ topic: 'a/b' }),
    terms,
    {
      message: outboundMessage({ topic: 'a/b' }),
      settle: outcome => promise.settle(outcome),
      fail: error => promise.fail(error),
    },
    (given, reason, cause) => givenUp.push({ publication: given, reason, cause }),
  )
  return { publication, promise, givenUp }
}

describe('a publish without terms', () => {
  it('has no timer, and settles', () => {
    const { publication, promise } = publishWith({ whenBlocked: 'wait' })
    expect(vi.getTimerCount()).toBe(0)
    expect(publication.message.topic).toBe('a/b')
    publication.settle({ status: 'sent' })
    publication.fail('mistake')
    expect(promise.outcomes).toEqual([{ status: 'sent' }])
    expect(promise.errors).toEqual(['mistake'])
  })
})

describe('a publish with timeoutMs', () => {
  it('is given up when the time is over, and not before', () => {
    const { publication, promise, givenUp } = publishWith({ timeoutMs: 700 })
    vi.advanceTimersByTime(699)
    expect(givenUp).toEqual([])
    vi.advanceTimersByTime(1)
    expect(givenUp).toMatchObject([{ reason: 'expired', cause: { code: 'TIMEOUT' } }])
    expect(givenUp[0]?.publication).toBe(publication)
    expect(givenUp[0]?.cause.message).toBe(
      'the broker did not acknowledge the publish to "a/b" within 700 ms',
    )
    // What becomes of it is for others to say.
    expect(promise.outcomes).toEqual([])
  })

  it.each(['settle', 'fail'] as const)('has no timer any more after %s', end => {
    const { publication, promise, givenUp } = publishWith({ timeoutMs: 700 })
    publication[end]({ status: 'sent' })
    expect(vi.getTimerCount()).toBe(0)
    vi.advanceTimersByTime(10_000)
    expect(givenUp).toEqual([])
    expect([...promise.outcomes, ...promise.errors]).toEqual([{ status: 'sent' }])
  })
})

describe('a publish with signal', () => {
  it('is given up when it is aborted, with the reason', () => {
    const aborting = new AbortController()
    const { publication, givenUp } = publishWith({ signal: aborting.signal })
    expect(vi.getTimerCount()).toBe(0)
    aborting.abort('changed my mind')
    expect(givenUp).toMatchObject([
      { reason: 'aborted', cause: { code: 'ABORTED', cause: 'changed my mind' } },
    ])
    expect(givenUp[0]?.publication).toBe(publication)
  })

  it.each(['settle', 'fail'] as const)('listens no longer after %s', end => {
    const aborting = new AbortController()
    const { publication, givenUp } = publishWith({ signal: aborting.signal, timeoutMs: 100 })
    expect(getEventListeners(aborting.signal, 'abort')).toHaveLength(1)
    publication[end]({ status: 'sent' })
    expect(getEventListeners(aborting.signal, 'abort')).toHaveLength(0)
    aborting.abort()
    vi.advanceTimersByTime(10_000)
    expect(givenUp).toEqual([])
  })
})
