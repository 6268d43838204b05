import { describe, expect, it, vi } from 'vitest'
import { MqttError } from '../../../../src/errors.js'
import { OpenRequests } from '../../../../src/transport/requests/open-requests.js'
import { holdClock } from '../../../support/held-clock.js'

holdClock()

function receiver() {
  const heard: unknown[] = []
  return {
    heard,
    next: (value: unknown): void => void heard.push(value),
    end: (): void => void heard.push('end'),
    fail: ({ code }: MqttError): void => void heard.push(code),
  }
}

const terms = (signal?: AbortSignal) => ({ timeoutMs: 100, signal })
const LOST = new MqttError('CONNECTION_LOST', 'lost')

describe('a request ends once', () => {
  it.each([
    ['its end', (open: OpenRequests) => open.end('a'), ['end']],
    ['an error', (open: OpenRequests) => open.fail('a', LOST), ['CONNECTION_LOST']],
    ['its time', () => vi.advanceTimersByTime(100), ['TIMEOUT']],
    ['the connection', (open: OpenRequests) => open.failAll(LOST), ['CONNECTION_LOST']],
    ['its requester', (open: OpenRequests) => open.cancel('a'), []],
  ])('with %s, whatever comes then', (_what, work, heard) => {
    const open = new OpenRequests(10)
    const asker = receiver()
    const aborter = new AbortController()
    expect(open.add('a', 'ask', asker, terms(aborter.signal))).toBe(true)
    work(open)
    expect(asker.heard).toEqual(heard)
    expect([open.size, open.has('a'), open.termsOf('a')]).toEqual([0, false, undefined])
    open.end('a')
    open.fail('a', LOST)
    open.failAll(LOST)
    aborter.abort()
    vi.advanceTimersByTime(1_000)
    expect(open.next('a', 1)).toBe(false)
    expect(asker.heard).toEqual(heard)
    expect(open.unexpectedResponses).toBe(1)
  })

  it('fails at once when it is aborted already, and when there are too many', () => {
    const open = new OpenRequests(1)
    const [first, aborted, second] = [receiver(), receiver(), receiver()]
    expect(open.add('a', 'ask', first, terms())).toBe(true)
    expect(open.add('b', 'ask', aborted, terms(AbortSignal.abort()))).toBe(false)
    expect(open.add('c', 'ask', second, terms())).toBe(false)
    expect([first.heard, aborted.heard, second.heard]).toEqual([[], ['ABORTED'], ['TOO_MANY_REQUESTS']])
    open.end('a')
    expect(open.add('c', 'ask', second, terms())).toBe(true)
    open.end('c')
  })
})

describe('the time of a request', () => {
  it('begins anew with each answer', () => {
    const open = new OpenRequests(1)
    const asker = receiver()
    open.add('a', 'ask', asker, terms())
    for (const value of [1, 2, 3]) {
      vi.advanceTimersByTime(99)
      expect(open.next('a', value)).toBe(true)
    }
    vi.advanceTimersByTime(99)
    expect(asker.heard).toEqual([1, 2, 3])
    vi.advanceTimersByTime(1)
    expect(asker.heard).toEqual([1, 2, 3, 'TIMEOUT'])
  })
})

describe('the responder is told to stop', () => {
  it.each([
    ['the requester cancels', (open: OpenRequests) => open.cancel('a')],
    ['the time is over', () => vi.advanceTimersByTime(100)],
  ])('once, when %s, in the way that it said first', (_what, work) => {
    const open = new OpenRequests(1)
    const [first, second] = [vi.fn(), vi.fn()]
    open.add('a', 'ask', receiver(), terms())
    open.setCancel('a', first)
    open.setCancel('a', second)
    work(open)
    open.cancel('a')
    expect(first).toHaveBeenCalledTimes(1)
    expect(second).not.toHaveBeenCalled()
  })

  it('not when it ended by itself, or is gone', () => {
    const open = new OpenRequests(2)
    const cancel = vi.fn()
    for (const key of ['a', 'b']) {
      open.add(key, 'ask', receiver(), terms())
      open.setCancel(key, cancel)
    }
    open.end('a')
    open.failAll(LOST)
    open.setCancel('a', cancel)
    open.cancel('a')
    expect(cancel).not.toHaveBeenCalled()
  })
})
