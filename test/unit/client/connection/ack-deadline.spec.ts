import { describe, expect, it, vi } from 'vitest'
import { AckDeadline } from '../../../../src/client/connection/ack-deadline.js'
import { holdClock } from '../../../support/held-clock.js'

const TIMEOUT_MS = 10_000

interface Sent {
  readonly name: string
  sentMs: number
}

holdClock()

/** A deadline over packets that a test sends and acknowledges, and when it gave up, counted from now. */
function watched(extraMs = 0) {
  const startMs = performance.now()
  const waiting: Sent[] = []
  const overdue: string[] = []
  const link: { isIntakePaused: boolean; intakeResumedMs: number; behindSinceMs: number | undefined } = {
    isIntakePaused: false,
    intakeResumedMs: Number.NEGATIVE_INFINITY,
    behindSinceMs: undefined,
  }
  const deadline = new AckDeadline<Sent>(link, TIMEOUT_MS, {
    oldest: () => waiting[0],
    extraMs: () => extraMs,
    onOverdue: ({ name }) => overdue.push(`${name} at ${performance.now() - startMs}`),
  })
  return {
    deadline,
    link,
    overdue,
    send(name: string) {
      waiting.push({ name, sentMs: performance.now() })
      deadline.sent()
    },
    acknowledge(name: string) {
      waiting.splice(
        waiting.findIndex(sent => sent.name === name),
        1,
      )
      deadline.acknowledgedMs = performance.now()
    },
  }
}

describe('AckDeadline', () => {
  it('expires exactly after the time of the first packet if nothing is acknowledged', () => {
    const { send, overdue } = watched()
    send('first')
    vi.advanceTimersByTime(3_000)
    send('second')
    vi.advanceTimersByTime(6_999)
    expect(overdue).toEqual([])
    vi.advanceTimersByTime(1)
    expect(overdue).toEqual(['first at 10000'])
  })

  it('is late after half of the time, until the acknowledgement arrives', () => {
    const { send, acknowledge, deadline } = watched()
    send('a')
    vi.advanceTimersByTime(4_999)
    expect(deadline.isLate).toBe(false)
    vi.advanceTimersByTime(1)
    expect(deadline.isLate).toBe(true)
    acknowledge('a')
    expect(deadline.isLate).toBe(false)
    vi.advanceTimersByTime(20_000)
  })

  it('has one timer for many packets, and none when all are acknowledged', () => {
    const { send, acknowledge } = watched()
    for (let count = 0; count < 1_000; count += 1) send(`${count}`)
    expect(vi.getTimerCount()).toBe(1)
    for (let count = 0; count < 1_000; count += 1) acknowledge(`${count}`)
    vi.advanceTimersByTime(TIMEOUT_MS)
    expect(vi.getTimerCount()).toBe(0)
  })

  it('does not expire on a slow link while its oldest packet changes', () => {
    const { send, acknowledge, overdue, deadline } = watched()
    for (let count = 0; count < 100; count += 1) send(`${count}`)
    for (let count = 0; count < 100; count += 1) {
      vi.advanceTimersByTime(4_000)
      expect(deadline.isLate).toBe(false)
      acknowledge(`${count}`)
    }
    expect(overdue).toEqual([])
    vi.advanceTimersByTime(TIMEOUT_MS)
  })

  it('expires for one skipped packet after one and a half times the limit at the latest', () => {
    const { send, acknowledge, overdue } = watched()
    send('forgotten')
    for (let count = 0; count < 10; count += 1) {
      send(`${count}`)
      vi.advanceTimersByTime(1_000)
      acknowledge(`${count}`)
    }
    vi.advanceTimersByTime(5_000)
    expect(overdue).toEqual(['forgotten at 14000'])
  })

  it('does not count time in which nothing is read', () => {
    const { send, overdue, link } = watched()
    send('a')
    vi.advanceTimersByTime(9_000)
    link.isIntakePaused = true
    vi.advanceTimersByTime(30_000)
    link.isIntakePaused = false
    link.intakeResumedMs = performance.now()
    vi.advanceTimersByTime(9_999)
    expect(overdue).toEqual([])
    vi.advanceTimersByTime(1)
    expect(overdue).toEqual(['a at 49000'])
  })

  it('starts again if its own timer is late, because the process has read nothing in the meantime', () => {
    const { send, overdue } = watched()
    send('a')
    vi.advanceTimersByTime(5_000)
    const now = performance.now()
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => now + 40_000)
    vi.advanceTimersByTime(5_000)
    expect(overdue).toEqual([])
    clock.mockRestore()
    vi.advanceTimersByTime(60_000)
    expect(overdue).toHaveLength(1)
  })

  it('allows the additional time that its watch returns', () => {
    const { send, overdue } = watched(5_000)
    send('large')
    vi.advanceTimersByTime(14_999)
    expect(overdue).toEqual([])
    vi.advanceTimersByTime(1)
    expect(overdue).toEqual(['large at 15000'])
  })

  it('does nothing after it was stopped', () => {
    const { send, overdue, deadline } = watched()
    send('a')
    deadline.stop()
    send('b')
    vi.advanceTimersByTime(60_000)
    expect(overdue).toEqual([])
    expect(deadline.isLate).toBe(false)
  })
})
