import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { PacketIds } from '../../../../src/core/protocol/packets.js'

const ALL = 65_535

function allocateAll(ids: PacketIds): (number | undefined)[] {
  return Array.from({ length: ALL }, () => ids.allocate())
}

describe('PacketIds', () => {
  it('start at 1, because 0 is not a Packet Identifier [MQTT-2.2.1-3]', () => {
    const ids = new PacketIds()
    expect([ids.allocate(), ids.allocate(), ids.allocate()]).toEqual([1, 2, 3])
  })

  it('do not assign a released one again at once', () => {
    const ids = new PacketIds()
    expect(ids.allocate()).toBe(1)
    ids.release(1)
    expect(ids.allocate()).toBe(2)
  })

  it('are 65,535 different ones, and then none', () => {
    const ids = new PacketIds()
    const given = allocateAll(ids)
    expect(new Set(given).size).toBe(ALL)
    expect([given[0], given.at(-1)]).toEqual([1, ALL])
    expect(ids.allocate()).toBeUndefined()
    expect(ids.allocate()).toBeUndefined()
  })

  it('find the only free one among all others', () => {
    const ids = new PacketIds()
    allocateAll(ids)
    for (const free of [1, 40_000, ALL]) {
      ids.release(free)
      expect(ids.allocate()).toBe(free)
      expect(ids.allocate()).toBeUndefined()
    }
  })

  it('start again after 65,535, and skip those in use', () => {
    const ids = new PacketIds()
    allocateAll(ids)
    for (let id = 3; id <= ALL; id++) ids.release(id)
    expect([ids.allocate(), ids.allocate()]).toEqual([3, 4])
  })

  it('are in use by a publish until it is acknowledged', () => {
    const ids = new PacketIds<string>()
    const first = ids.next() ?? 0
    ids.unacknowledged.set(first, 'publish')
    for (let id = 2; id <= ALL; id++) ids.allocate()
    expect(ids.next()).toBeUndefined()
    let freed = 0
    ids.whenFree(() => {
      freed += 1
    })
    ids.acknowledged(first)
    expect([freed, ids.allocate()]).toEqual([1, first])
  })

  it('ignore the release of one that is not in use', () => {
    const ids = new PacketIds()
    ids.release(1)
    ids.release(0)
    expect(ids.allocate()).toBe(1)
  })

  it('are never assigned twice, in whatever order they are released', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.constant('allocate' as const), fc.nat(20)), { maxLength: 100 }),
        steps => {
          const ids = new PacketIds()
          const inUse = new Set<number>()
          for (const step of steps) {
            if (step === 'allocate') {
              const id = ids.allocate() ?? 0
              expect(id).toBeGreaterThan(0)
              expect(inUse.has(id)).toBe(false)
              inUse.add(id)
            } else {
              const id = [...inUse][step]
              if (id === undefined) continue
              inUse.delete(id)
              ids.release(id)
            }
          }
        },
      ),
    )
  })
})
