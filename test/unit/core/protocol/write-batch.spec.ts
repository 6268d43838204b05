import { describe, expect, it } from 'vitest'
import { WriteBatch } from '../../../../src/core/protocol/write-batch.js'
import { SeededRandom } from '../../../support/seeded-random.js'

/** Longer ones are not copied. */
const COPIED = 8_192
const SLAB = 65_536

const filled = (length: number, value: number) => Buffer.alloc(length, value)

describe('WriteBatch', () => {
  it('is empty at first', () => {
    const batch = new WriteBatch()
    expect(batch.bytes).toBe(0)
    expect(batch.take()).toEqual([])
  })

  it('makes one chunk of short packets, in order', () => {
    const batch = new WriteBatch()
    batch.append(Buffer.from('ab'))
    batch.append(Buffer.from('cd'))
    batch.append(Buffer.from('ef'))
    expect(batch.bytes).toBe(6)
    expect(batch.take().map(String)).toEqual(['abcdef'])
    expect(batch.bytes).toBe(0)
    expect(batch.take()).toEqual([])
  })

  it('returns each byte once', () => {
    const batch = new WriteBatch()
    batch.append(Buffer.from('first'))
    expect(batch.take().map(String)).toEqual(['first'])
    batch.append(Buffer.from('second'))
    expect(batch.bytes).toBe(6)
    expect(batch.take().map(String)).toEqual(['second'])
  })

  it('never overwrites a chunk that was taken', () => {
    const batch = new WriteBatch()
    const taken: Buffer[] = []
    for (let round = 0; round < 200; round += 1) {
      batch.append(filled(1_000, round))
      taken.push(...batch.take())
    }
    expect(taken.map(chunk => chunk.length)).toEqual(Array(200).fill(1_000))
    expect(taken.every((chunk, round) => chunk.equals(filled(1_000, round)))).toBe(true)
  })

  it('copies a payload up to a limit, and passes on a longer one without a copy', () => {
    const batch = new WriteBatch()
    const short = filled(COPIED, 1)
    const long = filled(COPIED + 1, 2)
    batch.append(Buffer.from('a'))
    batch.append(short)
    batch.append(Buffer.from('b'))
    batch.append(long)
    batch.append(Buffer.from('c'))
    expect(batch.bytes).toBe(short.length + long.length + 3)
    const chunks = batch.take()
    expect(chunks).toHaveLength(3)
    expect(chunks[0]).toEqual(Buffer.concat([Buffer.from('a'), short, Buffer.from('b')]))
    expect(chunks[1]).toBe(long)
    expect(chunks[2]?.toString()).toBe('c')
  })

  it('keeps the copied bytes if the source changes', () => {
    const batch = new WriteBatch()
    const source = Buffer.from('before')
    batch.append(source)
    source.write('after!')
    expect(batch.take().map(String)).toEqual(['before'])
  })

  it('allocates more memory when it is full, and keeps the bytes of the first part', () => {
    const batch = new WriteBatch()
    batch.append(filled(SLAB - 10, 1))
    batch.append(filled(11, 2))
    expect(batch.bytes).toBe(SLAB + 1)
    expect(batch.take()).toEqual([filled(SLAB - 10, 1), filled(11, 2)])
  })

  it('accepts a packet that is longer than its memory', () => {
    const batch = new WriteBatch()
    batch.append(filled(5, 1))
    batch.append(filled(3 * SLAB, 2))
    batch.append(filled(5, 3))
    expect(batch.bytes).toBe(3 * SLAB + 10)
    expect(Buffer.concat(batch.take())).toEqual(
      Buffer.concat([filled(5, 1), filled(3 * SLAB, 2), filled(5, 3)]),
    )
  })

  it('is empty if nothing was written', () => {
    const batch = new WriteBatch()
    batch.append(Buffer.alloc(0))
    batch.append(Buffer.alloc(0))
    expect(batch.bytes).toBe(0)
    expect(batch.take()).toEqual([])
  })

  it('equals the concatenation of thousands of packets of all lengths', () => {
    const random = new SeededRandom(1)
    const batch = new WriteBatch()
    const expected: Buffer[] = []
    const taken: Buffer[] = []
    let untaken = 0
    for (let round = 0; round < 3_000; round += 1) {
      const limit = random.pick([10, 100, 3_000, 2 * COPIED])
      const bytes = filled(random.below(random.chance(0.01) ? 2 * SLAB : limit), random.below(256))
      batch.append(bytes)
      expected.push(bytes)
      untaken += bytes.length
      expect(batch.bytes).toBe(untaken)
      if (random.chance(0.9)) continue
      taken.push(...batch.take())
      untaken = 0
    }
    taken.push(...batch.take())
    expect(Buffer.concat(taken).equals(Buffer.concat(expected))).toBe(true)
  })
})
