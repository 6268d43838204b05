import { describe, expect, it, vi } from 'vitest'
import { OpenRequests } from '../../../../src/client/requests/open-requests.js'
import { MqttError } from '../../../../src/core/errors.js'
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

const terms = (signal?: AbortSignal) => ({ timeoutMs: 100, signal, isStream: true })
const RENEW_MS = 40
const opened = (maxOpen: number, tell: (...words: unknown[]) => void = () => {}) =>
  new OpenRequests(maxOpen, () => () => {}, tell, RENEW_MS)
const LOST = new MqttError('CONNECTION_LOST', 'lost')

describe('a request ends once', () => {
  it.each([
    ['its end', (open: OpenRequests) => open.end('a'), ['end']],
    ['its last response', (open: OpenRequests) => open.last('a', 7), [7, 'end']],
    ['an error', (open: OpenRequests) => open.fail('a', LOST), ['CONNECTION_LOST']],
    ['its time', () => vi.advanceTimersByTime(100), ['TIMEOUT']],
    ['the connection', (open: OpenRequests) => open.failAll(LOST), ['CONNECTION_LOST']],
    ['its requester', (open: OpenRequests) => open.cancel('a'), []],
  ])('with %s, whatever follows', (_what, work, heard) => {
    const open = opened(10)
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

  it('fails at once if it is already aborted, or if there are too many', () => {
    const open = opened(1)
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

describe('the time limit of a request', () => {
  it('starts again with each response', () => {
    const open = opened(1)
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

describe('the responders of a stream', () => {
  const asked = (maxOpen = 1) => {
    const told: unknown[] = []
    const open = opened(maxOpen, (...words) => told.push(words))
    open.add('a', 'ask', receiver(), terms())
    return { open, told }
  }
  const cancelled = (...topics: string[]) => topics.map(topic => [topic, 'a', 'cancel'])

  it.each([
    ['the requester cancels', (open: OpenRequests) => open.cancel('a')],
    ['the signal is aborted', (_open: OpenRequests, aborter: AbortController) => aborter.abort()],
  ])('each receive one cancel when %s', (_what, work) => {
    const told: unknown[] = []
    const open = opened(1, (...words) => told.push(words))
    const aborter = new AbortController()
    open.add('a', 'ask', receiver(), terms(aborter.signal))
    for (const topic of ['one', 'two', 'one']) open.addResponder('a', topic)
    work(open, aborter)
    open.cancel('a')
    expect(told).toEqual(cancelled('one', 'two'))
  })

  it('receive a cancel at the time limit, and renewals until then', () => {
    const { open, told } = asked()
    for (const topic of ['one', 'two']) open.addResponder('a', topic)
    vi.advanceTimersByTime(RENEW_MS)
    expect(told).toEqual([
      ['one', 'a', 'renew'],
      ['two', 'a', 'renew'],
    ])
    told.length = 0
    vi.advanceTimersByTime(100 - RENEW_MS)
    vi.advanceTimersByTime(1_000)
    expect(told.slice(-2)).toEqual(cancelled('one', 'two'))
    expect(told).toHaveLength(4)
  })

  it('receive no cancel if the only one has ended it', () => {
    const { open, told } = asked()
    open.addResponder('a', 'one')
    open.end('a')
    open.addResponder('a', 'one')
    expect(told).toEqual([])
  })

  it('receive a cancel when one of them has ended the stream, or failed', () => {
    for (const work of [
      (open: OpenRequests) => open.end('a'),
      (open: OpenRequests) => open.fail('a', LOST),
    ]) {
      const { open, told } = asked()
      for (const topic of ['one', 'two']) open.addResponder('a', topic)
      work(open)
      expect(told).toEqual(cancelled('one', 'two'))
    }
  })

  it('that respond after the end receive one cancel', () => {
    const { open, told } = asked()
    open.cancel('a')
    for (const topic of ['one', 'two', 'one', 'two']) open.addResponder('a', topic)
    expect(told).toEqual(cancelled('one', 'two'))
  })

  it('that continue after an outage receive a cancel', () => {
    const { open, told } = asked()
    open.addResponder('a', 'one')
    open.failAll(LOST)
    expect(told).toEqual([])
    open.addResponder('a', 'one')
    expect(told).toEqual(cancelled('one'))
  })

  it('are limited to 32, whatever the number of topics', () => {
    const { open, told } = asked()
    for (let index = 0; index < 100; index += 1) open.addResponder('a', `topic ${index}`)
    open.cancel('a')
    for (let index = 100; index < 200; index += 1) open.addResponder('a', `topic ${index}`)
    expect(told).toHaveLength(32)
  })

  it('are remembered for a thousand streams', () => {
    const { open, told } = asked()
    open.cancel('a')
    for (let index = 0; index < 1_000; index += 1) {
      open.add(`next ${index}`, 'ask', receiver(), terms())
      open.cancel(`next ${index}`)
    }
    open.addResponder('a', 'one')
    expect(told).toEqual([])
  })

  it('of a request for one response receive no cancel', () => {
    const told: unknown[] = []
    const open = opened(1, (...words) => told.push(words))
    open.add('a', 'ask', receiver(), { ...terms(), isStream: false })
    open.addResponder('a', 'one')
    open.cancel('a')
    open.addResponder('a', 'one')
    expect(told).toEqual([])
  })
})

it('a request stops waiting for its grant when it ends, whatever the reason', () => {
  for (const work of [
    (open: OpenRequests) => open.end('a'),
    (open: OpenRequests) => open.failAll(LOST),
    (open: OpenRequests) => open.cancel('a'),
    () => vi.advanceTimersByTime(100),
  ]) {
    const open = opened(1)
    const leave = vi.fn()
    open.add('a', 'ask', receiver(), terms())
    open.setLeave('a', leave)
    work(open)
    open.end('a')
    expect(leave).toHaveBeenCalledTimes(1)
  }
})
