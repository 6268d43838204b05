import type { Socket } from 'node:net'

/** Current conditions of one direction. Shared by all connections of a link, and changed in place. */
export interface LinkConditions {
  isStalled: boolean
  /** Undefined: no limit. */
  bytesPerSecond: number | undefined
  delayMs: number
}

/** Longest interval whose bytes a throttled link forwards at once, so that the rate is even. */
const SLICE_MS = 10

/** One direction of one connection. Reads no faster than its conditions allow, so that the sender gets backpressure. */
export class FaultPipe {
  private timer: NodeJS.Timeout | undefined
  private isStopped = false
  private isBlocked = false
  private freeAtMs = 0
  /** Delayed bytes, and the end of the stream, in order. */
  private held: (() => void)[] = []
  private readonly timers = new Set<NodeJS.Timeout>()
  private lastDueMs = 0

  constructor(
    private readonly source: Socket,
    private readonly sink: Socket,
    private readonly conditions: LinkConditions,
  ) {
    source.on('readable', () => this.look())
    source.once('end', () => this.later(() => this.sink.end()))
    sink.once('close', () => this.stop())
    sink.on('drain', () => {
      this.isBlocked = false
      this.look()
    })
  }

  /** Forwards as many bytes as the conditions allow. */
  look(): void {
    if (this.timer !== undefined) return
    while (!this.isStopped && !this.isBlocked && !this.conditions.isStalled) {
      const waitMs = this.freeAtMs - performance.now()
      if (this.conditions.bytesPerSecond !== undefined && waitMs > 0) return this.lookAgainIn(waitMs)
      const chunk = this.take()
      if (chunk === null) return
      this.pass(chunk)
    }
  }

  stop(): void {
    this.isStopped = true
    clearTimeout(this.timer)
    for (const timer of this.timers) clearTimeout(timer)
    this.timers.clear()
    this.held = []
  }

  /** Closes the sink when the source has ended and all delayed bytes have been forwarded. */
  finish(): void {
    this.later(() => this.sink.destroySoon())
  }

  private take(): Buffer | null {
    const { bytesPerSecond } = this.conditions
    if (bytesPerSecond === undefined) return this.source.read()
    const slice = Math.max(1, Math.floor((bytesPerSecond * SLICE_MS) / 1_000))
    const size = Math.min(slice, this.source.readableLength)
    // Reading zero bytes makes the source continue to fill its buffer.
    const chunk: Buffer | null = size === 0 ? this.source.read(0) : this.source.read(size)
    if (chunk === null) return null
    const now = performance.now()
    this.freeAtMs = Math.max(now - SLICE_MS, this.freeAtMs) + (chunk.length / bytesPerSecond) * 1_000
    return chunk
  }

  private pass(chunk: Buffer): void {
    this.later(() => this.write(chunk))
  }

  /** Forwards bytes after the delay, and never before bytes that are already delayed. */
  private later(work: () => void): void {
    const now = performance.now()
    this.lastDueMs = Math.max(this.held.length === 0 ? 0 : this.lastDueMs, now + this.conditions.delayMs)
    if (this.held.length === 0 && this.lastDueMs <= now) return work()
    this.held.push(work)
    const timer = setTimeout(() => {
      this.timers.delete(timer)
      // Timers of different lengths may fire out of order, but each releases the bytes in order.
      this.held.shift()?.()
    }, this.lastDueMs - now)
    this.timers.add(timer)
  }

  private write(chunk: Buffer): void {
    if (!this.sink.write(chunk)) this.isBlocked = true
  }

  private lookAgainIn(waitMs: number): void {
    this.timer = setTimeout(() => {
      this.timer = undefined
      this.look()
    }, waitMs)
  }
}
