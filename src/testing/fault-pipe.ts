import type { Socket } from 'node:net'

/** What one direction of a link is like now. Shared by all its connections, and changed in place. */
export interface LinkConditions {
  isStalled: boolean
  /** Undefined: as fast as it goes. */
  bytesPerSecond: number | undefined
  delayMs: number
}

/** Longest stretch that is let through at once under a throttle, so that the rate is even. */
const SLICE_MS = 10

/** One direction of one connection: reads no faster than its conditions allow, so that the sender feels it. */
export class FaultPipe {
  private timer: NodeJS.Timeout | undefined
  private isStopped = false
  private isBlocked = false
  private freeAtMs = 0
  private readonly held = new Set<NodeJS.Timeout>()

  constructor(
    private readonly source: Socket,
    private readonly sink: Socket,
    private readonly conditions: LinkConditions,
  ) {
    source.on('readable', () => this.look())
    source.once('end', () => this.sink.end())
    source.once('close', () => this.stop())
    sink.once('close', () => this.stop())
    sink.on('drain', () => {
      this.isBlocked = false
      this.look()
    })
  }

  /** Passes on what the conditions allow now. */
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
    for (const timer of this.held) clearTimeout(timer)
    this.held.clear()
  }

  private take(): Buffer | null {
    const { bytesPerSecond } = this.conditions
    if (bytesPerSecond === undefined) return this.source.read()
    const slice = Math.max(1, Math.floor((bytesPerSecond * SLICE_MS) / 1_000))
    const size = Math.min(slice, this.source.readableLength)
    // A read of nothing keeps the source filling its buffer.
    const chunk: Buffer | null = size === 0 ? this.source.read(0) : this.source.read(size)
    if (chunk === null) return null
    const now = performance.now()
    this.freeAtMs = Math.max(now - SLICE_MS, this.freeAtMs) + (chunk.length / bytesPerSecond) * 1_000
    return chunk
  }

  private pass(chunk: Buffer): void {
    const { delayMs } = this.conditions
    if (delayMs === 0 && this.held.size === 0) return this.write(chunk)
    const timer = setTimeout(() => {
      this.held.delete(timer)
      this.write(chunk)
    }, delayMs)
    this.held.add(timer)
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
