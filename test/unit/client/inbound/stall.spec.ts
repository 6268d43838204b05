import { describe, expect, it, vi } from 'vitest'
import { Stall } from '../../../../src/client/inbound/window-watch.js'
import { holdClock } from '../../../support/held-clock.js'
import { idleLink } from '../../../support/idle-link.js'

holdClock()

/** A link that notes whether it is read. */
function newLink() {
  const calls: string[] = []
  const link = idleLink({
    pauseIntake: () => calls.push('pause'),
    resumeIntake: () => calls.push('resume'),
  })
  return { link, calls }
}

function stalled({ awaits = false } = {}) {
  const state = { awaitsResponses: awaits }
  const stall = new Stall(state)
  const { link, calls } = newLink()
  expect(stall.pause(link)).toBe(true)
  return { stall, state, link, calls }
}

describe('Stall', () => {
  it('pauses a link once, and resumes it when there is room', () => {
    const { stall, link, calls } = stalled()
    expect(stall.pause(link)).toBe(true)
    expect(calls).toEqual(['pause'])
    stall.release()
    stall.release()
    expect(calls).toEqual(['pause', 'resume'])
    expect(vi.getTimerCount()).toBe(0)
  })

  it('has nothing to resume before it was paused', () => {
    const { link, calls } = newLink()
    new Stall({ awaitsResponses: true }).release()
    expect(calls).toEqual([])
    expect(link.isWritable()).toBe(true)
  })

  it('stays paused while this client does not wait for the broker', () => {
    const { stall, calls } = stalled()
    vi.advanceTimersByTime(3_600_000)
    expect(calls).toEqual(['pause'])
    stall.release()
  })

  it('reads until there is room if handlers wait for the broker and none ends', () => {
    const { stall, link, calls } = stalled({ awaits: true })
    vi.advanceTimersByTime(249)
    expect(calls).toEqual(['pause'])
    vi.advanceTimersByTime(1)
    expect(calls).toEqual(['pause', 'resume'])
    expect(stall.pause(link)).toBe(false)
    stall.release()
    expect(stall.pause(link)).toBe(true)
    stall.release()
  })

  it('stays paused while handlers end', () => {
    const { stall, calls } = stalled({ awaits: true })
    for (let count = 0; count < 10; count += 1) {
      stall.progressed()
      vi.advanceTimersByTime(250)
    }
    expect(calls).toEqual(['pause'])
    vi.advanceTimersByTime(250)
    expect(calls).toEqual(['pause', 'resume'])
  })

  it('resumes if handlers start to wait later', () => {
    const { state, calls } = stalled()
    vi.advanceTimersByTime(1_000)
    state.awaitsResponses = true
    vi.advanceTimersByTime(250)
    expect(calls).toEqual(['pause', 'resume'])
  })

  it('discards a closed link, and pauses the next one', () => {
    const { stall, calls } = stalled({ awaits: true })
    stall.forget()
    vi.advanceTimersByTime(1_000)
    expect(calls).toEqual(['pause'])
    const next = newLink()
    expect(stall.pause(next.link)).toBe(true)
    expect(next.calls).toEqual(['pause'])
    stall.release()
    expect(next.calls).toEqual(['pause', 'resume'])
  })
})
