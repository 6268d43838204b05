import { describe, expect, it, vi } from 'vitest'
import { brokerLimits } from '../../../../src/transport/connection/broker-limits.js'
import type { Link, OutgoingPublish, Packet } from '../../../../src/transport/connection/link.js'
import { PacedLink, type Pacing } from '../../../../src/transport/outbound/paced-link.js'
import { holdClock, quiet } from '../../../support/held-clock.js'
import { outboundMessage } from '../../../support/waiting-publish.js'

holdClock()

const MARKERS: Pacing = { flowControl: 'markers', topicAlias: true }
const KERNEL: Pacing = { flowControl: 'kernel', topicAlias: true }
const WINDOW = 2_048
/** A marker is due by then. */
const MARKER_MS = 100 / 8
const LONGEST = 100_000

/** A link that keeps what it is told to send. */
class RecordingLink implements Link {
  readonly protocolVersion = 5
  unwrap = () => undefined
  readonly sent: string[] = []
  readonly published: OutgoingPublish[] = []
  congested = false
  isIntakePaused = false
  intakeResumedMs = Number.NEGATIVE_INFINITY

  isCongested(): boolean {
    return this.congested
  }

  isWritable(): boolean {
    return true
  }

  send(packet: Packet): void {
    this.sent.push(packet.cmd)
  }

  publish(message: OutgoingPublish): number {
    if (message.payload.length > LONGEST) throw new Error('too long')
    this.sent.push('publish')
    this.published.push(message)
    return message.payload.length
  }

  sizeOf(message: OutgoingPublish): number {
    return message.payload.length + (message.messageId === undefined ? 0 : 2)
  }

  pauseIntake(): void {
    this.isIntakePaused = true
  }

  resumeIntake(): void {
    this.isIntakePaused = false
    this.intakeResumedMs = performance.now()
  }

  disconnect(): void {}
  hangUp(): void {}
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
  it('has one in front of the first message, alone on the wire', () => {
    const { link, publish } = paced()
    publish(10)
    publish(10)
    expect(link.sent).toEqual(['pingreq', 'publish', 'publish'])
  })

  it('has one behind each eighth of the window', () => {
    const { link, pacedLink, publish } = paced()
    for (let count = 0; count < 8; count += 1) publish(WINDOW / 8)
    expect(link.sent.filter(cmd => cmd === 'pingreq')).toHaveLength(9)
    expect(link.sent.at(-1)).toBe('pingreq')
    expect(pacedLink.isOpen()).toBe(false)
    expect([pacedLink.bytes, pacedLink.unconfirmedBytes]).toEqual([WINDOW, WINDOW])
  })

  it('has one behind fewer bytes after a while, and one for all of them', async () => {
    const { link, publish, endTurn } = paced()
    publish(10)
    await endTurn()
    publish(10)
    await endTurn()
    vi.advanceTimersByTime(MARKER_MS - 1)
    expect(link.sent).toEqual(['pingreq', 'publish', 'publish'])
    vi.advanceTimersByTime(2)
    expect(link.sent).toEqual(['pingreq', 'publish', 'publish', 'pingreq'])
    expect(vi.getTimerCount()).toBe(0)
  })

  it('sends it with the turn where it is due already', async () => {
    const { link, pacedLink, publish, endTurn } = paced()
    publish(10)
    await endTurn()
    vi.advanceTimersByTime(MARKER_MS + 1)
    pacedLink.confirm()
    pacedLink.confirm()
    vi.advanceTimersByTime(1_000)
    await quiet()
    publish(10)
    await endTurn()
    expect(link.sent).toEqual(['pingreq', 'publish', 'pingreq', 'publish', 'pingreq'])
    expect(vi.getTimerCount()).toBe(0)
  })

  it('needs none where Keep Alive has just sent one', async () => {
    const { link, pacedLink, publish, endTurn } = paced()
    publish(10)
    pacedLink.pinged()
    await endTurn()
    vi.advanceTimersByTime(1_000)
    expect(link.sent).toEqual(['pingreq', 'publish'])
    pacedLink.confirm()
    pacedLink.confirm()
    expect(pacedLink.unconfirmedBytes).toBe(0)
  })

  it('has no timer and sends nothing any more when the connection is gone', async () => {
    const { link, pacedLink, publish, endTurn } = paced()
    publish(10)
    await endTurn()
    expect(vi.getTimerCount()).toBe(1)
    pacedLink.stop()
    expect(vi.getTimerCount()).toBe(0)
    vi.advanceTimersByTime(1_000)
    expect(link.sent).toEqual(['pingreq', 'publish'])
  })

  it('is shut while the network takes no bytes', () => {
    const { link, pacedLink } = paced()
    expect(pacedLink.isOpen()).toBe(true)
    link.congested = true
    expect(pacedLink.isOpen()).toBe(false)
    expect(pacedLink.delayMs(1_000_000)).toBe(0)
  })

  it('knows what waits for it may be a burst, or a backlog once it is known to be slow', async () => {
    const { pacedLink, publish } = paced()
    expect(pacedLink.backlogBytes).toBe(4_194_304)
    publish(WINDOW)
    expect(pacedLink.isOpen()).toBe(false)
    pacedLink.confirm()
    vi.advanceTimersByTime(500)
    await quiet()
    pacedLink.confirm()
    expect(pacedLink.backlogBytes).toBe(4_194_304)
    vi.advanceTimersByTime(300)
    await quiet()
    expect(pacedLink.backlogBytes).toBe(262_144)
    expect(pacedLink.bytesPerSecond).toBe(WINDOW * 2)
    expect(pacedLink.delayMs(WINDOW * 2)).toBe(1_000)
  })
})

describe('a link without markers', () => {
  it('is open until the network refuses, and never asks', async () => {
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
    expect(pacedLink.delayMs(1)).toBe(Number.POSITIVE_INFINITY)
  })
})

describe('Topic Aliases of a link', () => {
  it('are not counted on after a message that could not be encoded', () => {
    const { link, publish } = paced(MARKERS, 10)
    expect(() => publish(LONGEST + 1)).toThrow()
    publish(1)
    expect(link.published[0]?.alias).toEqual({ alias: 1, isNew: true })
  })

  it('are as many as the broker takes', () => {
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

  it('are none where the option says so', () => {
    const { link, publish } = paced({ ...MARKERS, topicAlias: false }, 10)
    publish(1)
    expect(link.published[0]?.alias).toBeUndefined()
  })

  it('are not counted on when a packet is measured, but a Packet Identifier is', () => {
    const { pacedLink, publish } = paced(MARKERS, 10)
    publish(10)
    const message = outboundMessage({ topic: 'topic/1', payload: Buffer.alloc(10) })
    expect(pacedLink.sizeOf(message)).toBe(10)
    expect(pacedLink.sizeOf({ ...message, qos: 1 })).toBe(12)
  })
})
