import { describe, expect, it, vi } from 'vitest'
import type { Link, Packet, PublishWriter } from '../../../../src/client/connection/link.js'
import { PacedLink, type Pacing } from '../../../../src/client/outbound/paced-link.js'
import type { OutboundMessage } from '../../../../src/core/outbound/outbound-message.js'
import { brokerLimits } from '../../../../src/core/protocol/packets.js'
import type { TopicAlias } from '../../../../src/core/protocol/write-batch.js'
import { holdClock, quiet } from '../../../support/held-clock.js'
import { outboundMessage } from '../../../support/waiting-publish.js'

holdClock()

const MARKERS: Pacing = { flowControl: 'markers', topicAlias: true }
const KERNEL: Pacing = { flowControl: 'kernel', topicAlias: true }
const WINDOW = 2_048
/** A marker is due by then. */
const MARKER_MS = 100 / 8
const LONGEST = 100_000

/** A link that records what is sent. */
class RecordingLink implements Link {
  readonly protocolVersion = 5
  unwrap = () => undefined
  readonly sent: string[] = []
  readonly published: { readonly topic: string; readonly alias: TopicAlias | undefined }[] = []
  congested = false
  isIntakePaused = false
  intakeResumedMs = Number.NEGATIVE_INFINITY
  behindSinceMs: number | undefined
  receivedBytes = 0

  readonly writer: PublishWriter = {
    isFlushAwaited: false,
    isCongested: () => this.congested,
    publish: ({ topic, payload }, _messageId, alias) => {
      if (payload.length > LONGEST) throw new Error('too long')
      this.sent.push('publish')
      this.published.push({ topic, alias })
      return payload.length
    },
    sizeOf: ({ payload, qos }: OutboundMessage) => payload.length + (qos === 0 ? 0 : 2),
  }

  isWritable(): boolean {
    return true
  }

  send(packet: Packet): void {
    this.sent.push(packet.cmd)
  }

  pauseIntake(): void {
    this.isIntakePaused = true
  }

  resumeIntake(): void {
    this.isIntakePaused = false
    this.intakeResumedMs = performance.now()
  }

  reportTo(): void {}
  deliverTo(): void {}
  disconnect(): void {}
  terminate(): void {}
  destroy(): void {}
}

function paced(pacing: Pacing = MARKERS, topicAliasMaximum = 0) {
  const link = new RecordingLink()
  const pacedLink = new PacedLink(link, brokerLimits(5, { topicAliasMaximum }), pacing)
  const publish = (bytes: number, topic = 'topic/1') =>
    pacedLink.publish(outboundMessage({ topic, payload: Buffer.alloc(bytes) }), undefined)
  /** The end of a turn in which something was sent. */
  const endTurn = async () => {
    pacedLink.flushing()
    await quiet()
  }
  return { link, pacedLink, publish, endTurn }
}

describe('a link with markers', () => {
  it('has none for sparse traffic', async () => {
    const { link, publish, endTurn } = paced()
    for (let count = 0; count < 9; count += 1) {
      publish(100)
      await endTurn()
      vi.advanceTimersByTime(500)
    }
    expect(link.sent).toEqual(Array(9).fill('publish'))
    expect(vi.getTimerCount()).toBe(0)
  })

  it('has one after half of the first window, and one at its end', () => {
    const { link, pacedLink, publish } = paced()
    for (let count = 0; count < 8; count += 1) publish(WINDOW / 8)
    const half = [...Array(4).fill('publish'), 'pingreq']
    expect(link.sent).toEqual([...half, ...half])
    expect(pacedLink.isOpen()).toBe(false)
    expect([pacedLink.bytes, pacedLink.unconfirmedBytes]).toEqual([WINDOW, WINDOW])
  })

  it('has one after fewer bytes over time, once the window was the limit', async () => {
    const { link, pacedLink, publish, endTurn } = paced()
    publish(WINDOW)
    expect(pacedLink.isOpen()).toBe(false)
    pacedLink.confirm()
    publish(10)
    await endTurn()
    vi.advanceTimersByTime(MARKER_MS - 1)
    expect(link.sent).toEqual(['publish', 'pingreq', 'publish'])
    vi.advanceTimersByTime(2)
    expect(link.sent).toEqual(['publish', 'pingreq', 'publish', 'pingreq'])
    pacedLink.confirm()
    pacedLink.stop()
  })

  it('needs none after a PINGREQ of Keep Alive, or a PUBACK', async () => {
    const { link, pacedLink, publish, endTurn } = paced()
    publish(1_000)
    pacedLink.pinged()
    pacedLink.confirm()
    expect(pacedLink.unconfirmedBytes).toBe(0)
    publish(1_000)
    pacedLink.publish(outboundMessage({ qos: 1, payload: Buffer.alloc(10) }), 7)
    pacedLink.acknowledged(6)
    expect(pacedLink.unconfirmedBytes).toBe(1_010)
    pacedLink.acknowledged(7)
    expect(pacedLink.unconfirmedBytes).toBe(0)
    publish(1_000)
    await endTurn()
    vi.advanceTimersByTime(1_000)
    expect(link.sent).toEqual(Array(4).fill('publish'))
  })

  it('holds and probes a link whose response is late, and has no timer after its end', async () => {
    const { link, pacedLink, publish, endTurn } = paced()
    publish(WINDOW / 2)
    pacedLink.confirm()
    publish(WINDOW / 2)
    await endTurn()
    const before = link.sent.length
    vi.advanceTimersByTime(202)
    await quiet()
    expect(link.sent.slice(before)).toEqual(['pingreq'])
    expect(pacedLink.isOpen()).toBe(false)
    vi.advanceTimersByTime(101)
    await quiet()
    expect(link.sent.slice(before)).toEqual(['pingreq', 'pingreq'])
    expect(pacedLink.isOpen()).toBe(true)
    // What waited leaves when the probe has left.
    expect(link.writer.isFlushAwaited).toBe(true)
    pacedLink.stop()
    expect(vi.getTimerCount()).toBe(0)
  })

  it('is closed while the network accepts no bytes', () => {
    const { link, pacedLink } = paced()
    expect(pacedLink.isOpen()).toBe(true)
    link.congested = true
    expect(pacedLink.isOpen()).toBe(false)
    expect(pacedLink.delayMs(1_000_000)).toBe(0)
  })

  it('lets a burst wait while it is not known to be slow', () => {
    const { pacedLink, publish } = paced()
    publish(WINDOW)
    expect(pacedLink.isOpen()).toBe(false)
    expect(pacedLink.backlogBytes).toBe(4_194_304)
    pacedLink.stop()
  })
})

describe('a link without markers', () => {
  it('is open until the network refuses, and sends no marker', async () => {
    const { link, pacedLink, publish, endTurn } = paced(KERNEL)
    for (let count = 0; count < 100; count += 1) publish(10_000)
    await endTurn()
    vi.advanceTimersByTime(60_000)
    expect(link.sent).toEqual(Array(100).fill('publish'))
    expect(pacedLink.isOpen()).toBe(true)
    expect([pacedLink.bytes, pacedLink.unconfirmedBytes]).toEqual([1_000_000, 0])
    expect([pacedLink.delayMs(1), pacedLink.bytesPerSecond]).toEqual([0, undefined])
    link.congested = true
    expect(pacedLink.isOpen()).toBe(false)
    // Nobody knows how long it refuses.
    expect(pacedLink.delayMs(1)).toBe(0)
  })
})

describe('Topic Aliases of a link', () => {
  it('are not considered known after a message that could not be encoded', () => {
    const { link, publish } = paced(MARKERS, 10)
    expect(() => publish(LONGEST + 1)).toThrow()
    publish(1)
    expect(link.published[0]?.alias).toEqual({ alias: 1, isNew: true })
  })

  it('are limited to the number that the broker allows', () => {
    const { link, publish } = paced(MARKERS, 1)
    publish(1)
    publish(1)
    publish(1, 'topic/2')
    expect(link.published.map(({ topic, alias }) => [topic, alias])).toEqual([
      ['topic/1', { alias: 1, isNew: true }],
      ['topic/1', { alias: 1, isNew: false }],
      ['topic/2', { alias: 1, isNew: true }],
    ])
  })

  it('are off if the option is false', () => {
    const { link, publish } = paced({ ...MARKERS, topicAlias: false }, 10)
    publish(1)
    expect(link.published[0]?.alias).toBeUndefined()
  })

  it('are not included when a packet is measured, but a Packet Identifier is', () => {
    const { pacedLink, publish } = paced(MARKERS, 10)
    publish(10)
    const message = outboundMessage({ topic: 'topic/1', payload: Buffer.alloc(10) })
    expect(pacedLink.sizeOf(message)).toBe(10)
    expect(pacedLink.sizeOf({ ...message, qos: 1 })).toBe(12)
  })
})
