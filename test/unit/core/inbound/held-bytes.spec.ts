import { describe, expect, it } from 'vitest'
import { bytesOf, HeldBytes } from '../../../../src/core/inbound/open-messages.js'
import { message } from '../../../support/session-on-peer.js'

const sized = (bytes: number) => ({ bytes, isHeld: false })

/** At most 100 bytes. */
function heldWith({ count = 0, bytes = 0 } = {}) {
  const unreleased = { count, bytes }
  return { unreleased, held: new HeldBytes(100, unreleased) }
}

describe('the bytes of a message', () => {
  it('are those of its packet, or of its topic and payload, and those of the objects that hold it', () => {
    const { length: _none, ...unread } = message('abc', { payload: Buffer.alloc(10) })
    expect(bytesOf(unread)).toBe(512 + 3 + 10)
    expect(bytesOf({ ...unread, length: 40 })).toBe(512 + 40)
  })
})

describe('HeldBytes', () => {
  it('counts each message once, however often it is held or released', () => {
    const { held } = heldWith()
    const one = sized(30)
    held.hold(one)
    held.hold(one)
    expect(held.bytes).toBe(30)
    held.release(one)
    held.release(one)
    expect(held.bytes).toBe(0)
    held.hold(one)
    expect(held.bytes).toBe(30)
  })

  it('contains unreleased messages, and the bytes that loops and dead letters add', () => {
    const { held, unreleased } = heldWith()
    held.add(20)
    unreleased.bytes = 5
    expect(held.bytes).toBe(25)
    held.remove(15)
    expect(held.bytes).toBe(10)
  })

  it('reports with each message whether more than the limit is held, including unreleased messages', () => {
    const { held } = heldWith({ count: 1, bytes: 10 })
    expect([held.hold(sized(90)), held.hold(sized(1))]).toEqual([false, true])
  })

  it('is over the limit with the first byte beyond it', () => {
    const { held } = heldWith({ count: 1, bytes: 40 })
    held.add(60)
    expect(held.isOver).toBe(false)
    held.add(1)
    expect(held.isOver).toBe(true)
  })

  it.each([
    ['not if they are within the limit', 2, 100, false],
    ['if there are several beyond the limit', 2, 101, true],
    ['not if there is a single one, whatever its size', 1, 500, false],
  ])('is over the limit by unreleased messages alone %s', (_when, count, bytes, isPermanently) => {
    const { held } = heldWith({ count, bytes })
    expect(held.isPermanentlyOver).toBe(isPermanently)
    // Handlers can make no room.
    expect(held.isOver).toBe(false)
  })

  it('has room for a single message of any size, and for no other one', () => {
    const { held } = heldWith()
    held.hold(sized(150))
    expect(held.hasNoRoomFor(150)).toBe(false)
    held.hold(sized(1))
    expect(held.hasNoRoomFor(1)).toBe(true)
  })

  it('has room for any message within the limit', () => {
    const { held } = heldWith()
    held.hold(sized(60))
    held.hold(sized(40))
    expect(held.hasNoRoomFor(40)).toBe(false)
  })

  it('has room for as many bytes more as reach the limit', () => {
    const { held } = heldWith({ count: 1, bytes: 10 })
    held.add(50)
    expect([held.hasRoomFor(40), held.hasRoomFor(41)]).toEqual([true, false])
  })

  it('allows one loop a quarter of the limit', () => {
    expect(heldWith().held.shareOfLoop).toBe(25)
  })
})
