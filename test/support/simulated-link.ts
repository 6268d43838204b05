import { LinkWindow } from '../../src/core/outbound/link-window.js'

export interface LinkConduct {
  readonly bytesPerSecond: number
  readonly roundTripMs: number
}

/** What comes in, in front of the responses. */
export interface InboundTraffic {
  readonly bytesPerSecond: number
  /** What the downlink carries, or this process reads. */
  readonly carriedPerSecond: number
  /** What waits at most; more is lost. */
  readonly queueBytes: number
  /** This process is the one that is too slow, and its reads show it. */
  readonly isOurReading: boolean
}

/** What the application publishes under `drop`. */
export interface Offered {
  readonly bytesPerSecond: number
  readonly messageBytes: number
}

/** Of the time that is simulated. */
const TICK_MS = 0.25
const MARKER_BYTES = 2
const INBOUND_BYTES = 920
const FULL_READ_BYTES = 16_384
const MAX_DELAY_MS = 1_000

interface Packet {
  readonly from: SimulatedLink
  readonly bytes: number
  readonly isMarker: boolean
  /** When the application gave the message. Undefined for one that fills the link. */
  readonly offeredMs: number | undefined
}

/** A queue in front of something that carries so many bytes a second. */
class Queue<T extends { readonly bytes: number }> {
  bytes = 0
  private packets: T[] = []
  private gone = 0
  private capacity = 0

  push(packet: T): void {
    this.packets.push(packet)
    this.bytes += packet.bytes
  }

  carry(bytesPerSecond: number): T[] {
    this.capacity += (bytesPerSecond * TICK_MS) / 1_000
    const carried: T[] = []
    for (;;) {
      const packet = this.packets[this.gone]
      if (packet === undefined) {
        this.capacity = 0
        this.packets = []
        this.gone = 0
        return carried
      }
      if (packet.bytes > this.capacity) return carried
      this.capacity -= packet.bytes
      this.bytes -= packet.bytes
      this.gone += 1
      carried.push(packet)
    }
  }
}

/**
 * An uplink with a rate and a round trip, a downlink with traffic of others, and a sender that goes by a `LinkWindow`
 * as the package does. Time is a number.
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
  /** PINGREQs that were sent. */
  pings = 0
  /** As many of the next responses are lost, one of so many. */
  losing = 0
  losingEvery = 1
  /** While this process is busy, it writes nothing and reads no response. */
  isPaused = false
  conduct: LinkConduct
  inbound: InboundTraffic | undefined
  dropped = 0
  /** Ages of the messages that were delivered, in milliseconds. */
  ages: number[] = []
  /** Writes with `writeFilling` what publishes leave room for, as the store does. */
  fill: (othersWait: boolean) => void = () => {}
  /** Called for each such message when the broker has acknowledged it. */
  onFilled: () => void = () => {}
  private filling: number[] = []
  private readonly down = new Queue<{ readonly bytes: number; readonly isResponse: boolean }>()
  /** When responses leave the broker. */
  private responses: number[] = []
  private responded = 0
  private waiting: { readonly bytes: number; readonly offeredMs: number }[] = []
  /** When something is due by time alone. */
  private wakeMs = Number.POSITIVE_INFINITY
  private owed = 0
  private inboundOwed = 0
  private behindSinceMs: number | undefined
  private caughtUpMs = Number.NEGATIVE_INFINITY

  /** @param up what several connections share */
  constructor(
    conduct: LinkConduct,
    private readonly up = new Queue<Packet>(),
  ) {
    this.conduct = conduct
  }

  /** Connections that share one uplink. */
  static sharing(count: number, conduct: LinkConduct): SimulatedLink[] {
    const up = new Queue<Packet>()
    return Array.from({ length: count }, () => new SimulatedLink(conduct, up))
  }

  /** Publishes an even load on each of the connections that share an uplink. */
  static offerOnEach(links: readonly SimulatedLink[], forMs: number, offered: Offered): void {
    for (let elapsedMs = 0; elapsedMs < forMs; elapsedMs += TICK_MS) {
      links[0]?.carryUp()
      for (const link of links) link.tick(() => link.publish(offered))
    }
  }

  /** Writes messages of this length while the window is open, `perTick` of them at most. */
  run(forMs: number, messageBytes = this.usualBytes, perTick = Number.POSITIVE_INFINITY): void {
    this.tickFor(forMs, () => {
      for (let count = 0; count < perTick && this.isOpen(); count += 1) this.write(messageBytes)
    })
  }

  /** Lets time pass in which nothing is written. */
  idle(forMs: number): void {
    this.run(forMs, 0, 0)
  }

  /** Publishes an even load. What the window does not take waits, and is dropped as the package drops it. */
  offer(forMs: number, offered: Offered): void {
    this.tickFor(forMs, () => this.publish(offered))
  }

  /** Part of what the link can carry that it carries, while the sender writes for so long. */
  utilisation(forMs: number, messageBytes?: number): number {
    return this.carriedWhile(() => this.run(forMs, messageBytes))
  }

  /** The same for an offered load. */
  utilisationOf(forMs: number, offered: Offered): number {
    return this.carriedWhile(() => this.offer(forMs, offered))
  }

  /** Forgets what was dropped and how old messages were. */
  forget(): void {
    this.dropped = 0
    this.ages = []
  }

  age(quantile: number): number {
    const sorted = [...this.ages].sort((a, b) => a - b)
    return sorted[Math.max(0, Math.ceil(quantile * sorted.length) - 1)] ?? 0
  }

  write(bytes: number, offeredMs = this.nowMs): void {
    this.send(bytes, offeredMs)
  }

  writeFilling(bytes: number): void {
    this.send(bytes, undefined)
  }

  private send(bytes: number, offeredMs: number | undefined): void {
    this.up.push({ from: this, bytes, isMarker: false, offeredMs })
    this.written += bytes
    this.onWire += bytes
    if (this.window.wrote(bytes, this.nowMs)) this.mark()
  }

  mark(): void {
    this.window.mark(this.nowMs)
    this.ping()
  }

  /** Long enough for a quick simulation, and short against the window. */
  private get usualBytes(): number {
    return Math.max(100, Math.round(this.conduct.bytesPerSecond / 1_000))
  }

  private carriedWhile(work: () => void): number {
    const { nowMs, delivered } = this
    this.mostOnWire = 0
    work()
    return ((this.delivered - delivered) * 1_000) / (this.nowMs - nowMs) / this.conduct.bytesPerSecond
  }

  isOpen(): boolean {
    const { behindSinceMs, nowMs } = this
    return this.window.isOpen(nowMs, behindSinceMs === undefined ? 0 : nowMs - behindSinceMs)
  }

  private publish({ bytesPerSecond, messageBytes }: Offered): void {
    this.owed += (bytesPerSecond * TICK_MS) / 1_000
    for (; this.owed >= messageBytes; this.owed -= messageBytes) this.enter(messageBytes)
    this.pump()
  }

  private enter(bytes: number): void {
    const queued = this.waiting.reduce((sum, waiting) => sum + waiting.bytes, 0)
    const isTooMuch = (this.window.delayMs(queued + bytes, this.nowMs) ?? 0) > MAX_DELAY_MS
    if (isTooMuch) this.dropped += 1
    else this.waiting.push({ bytes, offeredMs: this.nowMs })
  }

  private pump(): void {
    if (this.waiting.length > 0) this.fill(true)
    this.pumpWaiting()
    if (this.waiting.length === 0) this.fill(false)
  }

  private pumpWaiting(): void {
    for (let [next] = this.waiting; next !== undefined; [next] = this.waiting) {
      const isLate = this.nowMs + this.window.crowdedMs(this.nowMs) - next.offeredMs >= MAX_DELAY_MS
      if (!isLate && !this.isOpen()) return
      this.waiting.shift()
      if (isLate) this.dropped += 1
      else this.write(next.bytes, next.offeredMs)
    }
  }

  private ping(): void {
    this.pings += 1
    this.up.push({ from: this, bytes: MARKER_BYTES, isMarker: true, offeredMs: this.nowMs })
  }

  private tickFor(forMs: number, send: () => void): void {
    const endMs = this.nowMs + forMs
    while (this.nowMs < endMs) {
      this.carryUp()
      this.tick(send)
    }
  }

  private tick(send: () => void): void {
    this.nowMs += TICK_MS
    this.carryDown()
    if (this.isPaused) return
    send()
    this.tend()
    this.mostOnWire = Math.max(this.mostOnWire, this.onWire)
  }

  private tend(): void {
    const { window, nowMs } = this
    if (nowMs >= this.wakeMs) {
      this.wakeMs = Number.POSITIVE_INFINITY
      if (this.behindSinceMs === undefined) window.look(nowMs)
    }
    if (!window.isTending) return
    if (window.isMarkerDue(nowMs)) this.mark()
    this.wakeMs = Math.min(this.wakeMs, window.dueMs(nowMs) ?? Infinity)
  }

  private carryUp(): void {
    for (const packet of this.up.carry(this.conduct.bytesPerSecond)) packet.from.carried(packet)
  }

  private carried({ isMarker, bytes, offeredMs }: Packet): void {
    // The end of this tick.
    const atMs = this.nowMs + TICK_MS
    if (isMarker) this.responses.push(atMs + this.conduct.roundTripMs)
    else {
      this.delivered += bytes
      this.onWire -= bytes
      if (offeredMs === undefined) this.filling.push(atMs + this.conduct.roundTripMs)
      else this.ages.push(atMs - offeredMs)
    }
  }

  private carryDown(): void {
    const { inbound, nowMs } = this
    while ((this.responses[0] ?? Infinity) <= nowMs) {
      this.responses.shift()
      this.responded += 1
      if (this.losing > 0 && this.responded % this.losingEvery === 0) this.losing -= 1
      else this.down.push({ bytes: MARKER_BYTES, isResponse: true })
    }
    if (this.isPaused) return
    while ((this.filling[0] ?? Infinity) <= nowMs) {
      this.filling.shift()
      this.onFilled()
    }
    this.takeInbound()
    for (const { isResponse, bytes } of this.down.carry(inbound?.carriedPerSecond ?? Infinity)) {
      this.window.received += bytes
      if (isResponse) this.window.confirm(nowMs, this.behindSinceMs === undefined ? this.caughtUpMs : nowMs)
    }
  }

  private takeInbound(): void {
    const { inbound } = this
    this.inboundOwed += ((inbound?.bytesPerSecond ?? 0) * TICK_MS) / 1_000
    for (; this.inboundOwed >= INBOUND_BYTES; this.inboundOwed -= INBOUND_BYTES) {
      if (this.down.bytes < (inbound?.queueBytes ?? 0))
        this.down.push({ bytes: INBOUND_BYTES, isResponse: false })
    }
    const isBehind = inbound?.isOurReading === true && this.down.bytes > FULL_READ_BYTES
    if (isBehind) this.behindSinceMs ??= this.nowMs
    else if (this.behindSinceMs !== undefined) {
      this.caughtUpMs = this.nowMs
      this.behindSinceMs = undefined
    }
  }
}
