import { LinkWindow } from '../../src/transport/outbound/link-window.js'

export interface LinkConduct {
  readonly bytesPerSecond: number
  readonly roundTripMs: number
}

/** Of the time that is simulated. */
const TICK_MS = 0.25
const MARKER_BYTES = 2

interface Packet {
  readonly bytes: number
  readonly isMarker: boolean
}

/**
 * A link with a rate and a round trip, in front of which packets queue, and a sender that goes by a `LinkWindow` as
 * the package does. Time is a number.
 */
export class SimulatedLink {
  readonly window = new LinkWindow()
  nowMs = 0
  /** Bytes of messages that the broker has read. */
  delivered = 0
  written = 0
  /** Bytes of messages that wait in front of the link or are being read. */
  onWire = 0
  mostOnWire = 0
  /** While this process pauses, nobody writes and no answer is taken. */
  isPaused = false
  conduct: LinkConduct
  private queue: Packet[] = []
  /** Packets at the front of the queue that are gone already. */
  private gone = 0
  /** When the answers to markers arrive. */
  private answers: number[] = []
  private capacity = 0
  private first = true

  constructor(conduct: LinkConduct) {
    this.conduct = conduct
  }

  /** Writes messages of this length while the window is open, `perTick` of them at most. */
  run(forMs: number, messageBytes = this.usualBytes, perTick = Number.POSITIVE_INFINITY): void {
    const endMs = this.nowMs + forMs
    while (this.nowMs < endMs) this.tick(messageBytes, perTick)
  }

  /** Lets time pass in which nothing is written. */
  idle(forMs: number): void {
    this.run(forMs, 0, 0)
  }

  /** Long enough for a quick simulation, and short against the window. */
  private get usualBytes(): number {
    return Math.max(100, Math.round(this.conduct.bytesPerSecond / 1_000))
  }

  /** Part of what the link can carry that it carries, while the sender writes for so long. */
  utilisation(forMs: number, messageBytes?: number): number {
    const { nowMs, delivered } = this
    this.mostOnWire = 0
    this.run(forMs, messageBytes)
    return ((this.delivered - delivered) * 1_000) / (this.nowMs - nowMs) / this.conduct.bytesPerSecond
  }

  write(bytes: number): void {
    if (this.first) this.mark()
    this.first = false
    this.queue.push({ bytes, isMarker: false })
    this.written += bytes
    this.onWire += bytes
    this.window.wrote(bytes, this.nowMs)
    if (this.window.wantsMarker) this.mark()
  }

  mark(): void {
    this.window.mark(this.nowMs)
    this.queue.push({ bytes: MARKER_BYTES, isMarker: true })
  }

  private tick(messageBytes: number, perTick: number): void {
    this.nowMs += TICK_MS
    this.carry()
    if (this.isPaused) return
    this.takeAnswers()
    for (let count = 0; count < perTick && this.window.isOpen(this.nowMs); count += 1)
      this.write(messageBytes)
    const { markerDueMs } = this.window
    if (markerDueMs !== undefined && markerDueMs <= this.nowMs) this.mark()
    this.mostOnWire = Math.max(this.mostOnWire, this.onWire)
  }

  private carry(): void {
    this.capacity += (this.conduct.bytesPerSecond * TICK_MS) / 1_000
    for (;;) {
      const packet = this.queue[this.gone]
      if (packet === undefined) {
        this.capacity = 0
        this.queue = []
        this.gone = 0
        return
      }
      if (packet.bytes > this.capacity) return
      this.capacity -= packet.bytes
      this.gone += 1
      if (packet.isMarker) this.answers.push(this.nowMs + this.conduct.roundTripMs)
      else {
        this.delivered += packet.bytes
        this.onWire -= packet.bytes
      }
    }
  }

  private takeAnswers(): void {
    const due = this.answers.filter(atMs => atMs <= this.nowMs)
    this.answers = this.answers.filter(atMs => atMs > this.nowMs)
    for (const _answer of due) {
      this.window.confirm(this.nowMs)
      if (this.window.wantsProbe) this.mark()
    }
  }
}
