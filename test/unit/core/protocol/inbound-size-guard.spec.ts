import fc from 'fast-check'
import { generate } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { InboundSizeGuard } from '../../../../src/core/protocol/packet-fields.js'

const publish = (bytes: number): Buffer =>
  generate({ cmd: 'publish', topic: 't', payload: Buffer.alloc(bytes), qos: 0, dup: false, retain: false })

/** Feeds the bytes in chunks. @returns the first size that was too large, and how many bytes were fed until then */
function feed(guard: InboundSizeGuard, bytes: Buffer, chunkBytes: readonly number[]) {
  let fed = 0
  for (let turn = 0; fed < bytes.length; turn += 1) {
    const chunk = bytes.subarray(fed, fed + (chunkBytes[turn % chunkBytes.length] ?? 1))
    fed += chunk.length
    const size = guard.feed(chunk)
    if (size !== undefined) return { size, fed }
  }
  return undefined
}

describe('InboundSizeGuard', () => {
  it.each([
    ['PINGRESP', Buffer.from('d000', 'hex'), 2],
    ['a packet with one byte of length', publish(100), publish(100).length],
    ['with two', publish(200), publish(200).length],
    ['with three', publish(20_000), publish(20_000).length],
  ])('takes %s of exactly as many bytes as may be, and not of one more', (_what, packet, size) => {
    expect(new InboundSizeGuard(size).feed(packet)).toBeUndefined()
    expect(new InboundSizeGuard(size - 1).feed(packet)).toBe(size)
  })

  it('knows the size with the last byte of the length, before any byte of the content', () => {
    const guard = new InboundSizeGuard(1_000)
    const fed = ['30', 'ff', 'ff', 'ff'].map(hex => guard.feed(Buffer.from(hex, 'hex')))
    expect(fed).toEqual([undefined, undefined, undefined, undefined])
    expect(guard.feed(Buffer.from('7f', 'hex'))).toBe(268_435_460)
  })

  it('takes the largest packet of MQTT where it may be that large', () => {
    const guard = new InboundSizeGuard(268_435_460)
    expect(guard.feed(Buffer.from('30ffffff7f', 'hex'))).toBeUndefined()
  })

  it('does not take content for a header', () => {
    const guard = new InboundSizeGuard(50)
    const content = Buffer.concat([Buffer.from([0x30, 40]), Buffer.alloc(40, 0xff)])
    for (const byte of Buffer.concat([content, content]))
      expect(guard.feed(Buffer.from([byte]))).toBeUndefined()
    expect(guard.feed(publish(100))).toBe(publish(100).length)
  })

  it('needs nothing for an empty chunk', () => {
    expect(new InboundSizeGuard(1).feed(Buffer.alloc(0))).toBeUndefined()
  })

  it.each(['30ffffffff', '30ffffffff01', '3080808080', '308080808001'])(
    'goes on behind the malformed length %s, for which the parser ends the connection',
    hex => {
      const guard = new InboundSizeGuard(1_000)
      const size = guard.feed(Buffer.from(hex, 'hex'))
      // Four bytes are read at most; what they say may be too large in itself.
      expect([undefined, 268_435_460]).toContain(size)
      expect(() => guard.feed(publish(10))).not.toThrow()
    },
  )

  it('finds the first packet that is too large in any stream, however it is cut', () => {
    const sizes = fc.array(fc.oneof(fc.nat(140), fc.nat(20_000)), { minLength: 1, maxLength: 12 })
    const cuts = fc.array(fc.integer({ min: 1, max: 3_000 }), { minLength: 1, maxLength: 8 })
    fc.assert(
      fc.property(sizes, cuts, fc.integer({ min: 10, max: 20_010 }), (payloads, chunks, limit) => {
        const packets = payloads.map(publish)
        const tooLarge = packets.findIndex(packet => packet.length > limit)
        const found = feed(new InboundSizeGuard(limit), Buffer.concat(packets), chunks)
        expect(found !== undefined).toBe(tooLarge !== -1)
        if (found === undefined) return
        expect(found.size).toBe(packets[tooLarge]?.length)
        const before = packets.slice(0, tooLarge).reduce((sum, packet) => sum + packet.length, 0)
        // At the latest with the chunk that holds the end of its fixed header.
        expect(found.fed).toBeLessThanOrEqual(before + 5 + Math.max(...chunks))
      }),
    )
  })
})
