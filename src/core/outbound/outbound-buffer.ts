import { Lane, type Publication } from './outbound-message.js'
import { type DropReason, POLICIES } from './publish-outcome.js'

type Displaced = readonly [Publication, DropReason]

export type Admission =
  /** The publish now waits, in place of these. */
  | { readonly isAdmitted: true; readonly displaced: readonly Displaced[] }
  | { readonly isAdmitted: false; readonly reason: DropReason }

/**
 * Publishes that wait to be written, in order. QoS 0 messages may overtake others; the order within QoS 0, and within QoS 1
 * and 2, is kept.
 */
export interface OutboundQueue {
  /** Number of waiting publishes. A field, because it is read for every publish. */
  readonly size: number
  readonly bytes: number
  /** Time after which the first of them must not be written any more. It may be too early, but never too late. */
  readonly nextDeadlineMs: number
  /** Whether a message of this QoS would be the first. */
  isEmpty(qos: 0 | 1 | 2): boolean
  /** @param backlogBytes number of bytes that may wait without being kept over an outage */
  add(publication: Publication, backlogBytes: number): Admission
  /** Returns the next publish in order; without `mayAcknowledge` the next one of QoS 0. */
  next(mayAcknowledge: boolean): Publication | undefined
  /** @returns whether it was waiting */
  remove(publication: Publication): boolean
  /** Removes and returns all publishes that `picks` selects, in order. */
  takeAll(picks: (publication: Publication) => boolean): Publication[]
  /** Removes and returns the publishes that must not be written any more. */
  takeLate(nowMs: number): Publication[]
  /** Time at which the oldest publish was added. */
  oldestMs(): number | undefined
}

export interface BufferLimits {
  /** Number of messages under `latest`, `queue` and `wait` together. */
  readonly maxQueued: number
  /** Bytes of these messages. */
  readonly maxQueuedBytes: number
  readonly overflow: 'drop-oldest' | 'drop-newest'
}

/** Each message uses some hundred bytes in addition to its payload. */
const MAX_BACKLOG_MESSAGES = 20_000

const NONE: readonly Displaced[] = []
const ADMITTED: Admission = { isAdmitted: true, displaced: NONE }

/** The queue in memory. */
export class OutboundBuffer implements OutboundQueue {
  size = 0
  private readonly plain = new Lane()
  private readonly acknowledged = new Lane()
  /** Publishes that are dropped for newer ones, in a separate list, so that the oldest is found quickly. */
  private readonly plainQueue = new Lane()
  private readonly acknowledgedQueue = new Lane()
  /** The newest message of each topic. Only a retained message replaces a retained message. */
  private readonly latest = new Map<string, Publication>()
  private queueBytes = 0
  private entered = 0
  private readonly backlog = { count: 0, bytes: 0 }
  private readonly kept = { count: 0, bytes: 0 }
  private readonly deadlines = new DeadlineHeap()

  constructor(private readonly limits: BufferLimits) {}

  get bytes(): number {
    return this.backlog.bytes + this.kept.bytes
  }

  get nextDeadlineMs(): number {
    return this.deadlines.first?.deadlineMs ?? Number.POSITIVE_INFINITY
  }

  isEmpty(qos: 0 | 1 | 2): boolean {
    return qos === 0
      ? this.plain.first === undefined && this.plainQueue.first === undefined
      : this.acknowledged.first === undefined && this.acknowledgedQueue.first === undefined
  }

  /** @param backlogBytes number of bytes that `drop` may hold back: a burst that the link will carry soon */
  add(publication: Publication, backlogBytes: number): Admission {
    const { isKept, isReplaced } = POLICIES[publication.mode]
    const replaced = isReplaced ? this.replace(publication) : undefined
    if (replaced !== undefined) return replaced
    const displaced = isKept ? this.makeRoom(publication) : this.fitsBacklog(publication, backlogBytes)
    if (displaced === undefined) return { isAdmitted: false, reason: isKept ? 'queue-full' : 'backlog' }
    this.insert(publication)
    return displaced === NONE ? ADMITTED : { isAdmitted: true, displaced }
  }

  next(mayAcknowledge: boolean): Publication | undefined {
    const plain = earlier(this.plain.first, this.plainQueue.first)
    if (!mayAcknowledge) return plain
    return earlier(plain, earlier(this.acknowledged.first, this.acknowledgedQueue.first))
  }

  remove(publication: Publication): boolean {
    if (!publication.isWaiting) return false
    publication.isWaiting = false
    this.laneOf(publication).remove(publication)
    this.account(publication, -1)
    if (POLICIES[publication.mode].isReplaced) this.latest.delete(keyOf(publication))
    // A settled publish is not kept in memory until its deadline.
    if (this.size === 0) this.deadlines.clear()
    return true
  }

  takeAll(picks: (publication: Publication) => boolean): Publication[] {
    const taken = [...this.all()].filter(picks).sort((a, b) => a.order - b.order)
    for (const publication of taken) this.remove(publication)
    return taken
  }

  takeLate(nowMs: number): Publication[] {
    const late: Publication[] = []
    for (
      let { first } = this.deadlines;
      first !== undefined && first.deadlineMs <= nowMs;
      { first } = this.deadlines
    ) {
      this.deadlines.pop()
      if (this.remove(first)) late.push(first)
    }
    return late
  }

  oldestMs(): number | undefined {
    let oldestMs: number | undefined
    for (const { enteredMs } of this.all()) oldestMs = Math.min(oldestMs ?? enteredMs, enteredMs)
    return oldestMs
  }

  private *all(): Generator<Publication> {
    for (const lane of [this.plain, this.plainQueue, this.acknowledged, this.acknowledgedQueue])
      for (let { first: at } = lane; at !== undefined; at = at.after) yield at
  }

  private laneOf({ mode, message }: Publication): Lane {
    if (POLICIES[mode].yields) return message.qos === 0 ? this.plainQueue : this.acknowledgedQueue
    return message.qos === 0 ? this.plain : this.acknowledged
  }

  /** The newer message takes the position of the older one, so that no topic is starved. */
  private replace(newer: Publication): Admission | undefined {
    const older = this.latest.get(keyOf(newer))
    if (older === undefined) return undefined
    if (this.kept.bytes + newer.bytes - older.bytes > this.limits.maxQueuedBytes)
      return { isAdmitted: false, reason: 'queue-full' }
    const lane = this.laneOf(older)
    if (lane === this.laneOf(newer)) {
      newer.order = older.order
      lane.replace(older, newer)
      older.isWaiting = false
      this.account(older, -1)
      this.enter(newer)
    } else {
      this.remove(older)
      this.insert(newer)
    }
    return { isAdmitted: true, displaced: [[older, 'superseded']] }
  }

  private fitsBacklog({ bytes }: Publication, backlogBytes: number): typeof NONE | undefined {
    const { backlog } = this
    if (backlog.count >= MAX_BACKLOG_MESSAGES) return undefined
    return backlog.count > 0 && backlog.bytes + bytes > backlogBytes ? undefined : NONE
  }

  /** Returns the publishes to drop for this one, or undefined if dropping does not help. */
  private makeRoom({ mode, bytes }: Publication): readonly Displaced[] | undefined {
    const { maxQueuedBytes, overflow } = this.limits
    if (this.fits(bytes)) return NONE
    if (!POLICIES[mode].yields || overflow === 'drop-newest') return undefined
    // The messages of other policies may leave no room, whatever is dropped.
    if (this.kept.bytes - this.queueBytes + bytes > maxQueuedBytes) return undefined
    const displaced: Displaced[] = []
    while (!this.fits(bytes)) {
      const oldest = earlier(this.plainQueue.first, this.acknowledgedQueue.first)
      if (oldest === undefined) break
      this.remove(oldest)
      displaced.push([oldest, 'queue-full'])
    }
    return displaced.length === 0 ? undefined : displaced
  }

  private fits(bytes: number): boolean {
    const { maxQueued, maxQueuedBytes } = this.limits
    return this.kept.count < maxQueued && this.kept.bytes + bytes <= maxQueuedBytes
  }

  private insert(publication: Publication): void {
    publication.order = this.entered++
    this.laneOf(publication).add(publication)
    this.enter(publication)
  }

  private enter(publication: Publication): void {
    publication.isWaiting = true
    this.account(publication, 1)
    if (POLICIES[publication.mode].isReplaced) this.latest.set(keyOf(publication), publication)
    if (publication.deadlineMs !== Number.POSITIVE_INFINITY) this.deadlines.push(publication, this.size)
  }

  private account({ mode, bytes }: Publication, sign: 1 | -1): void {
    const { isKept, yields } = POLICIES[mode]
    const group = isKept ? this.kept : this.backlog
    this.size += sign
    group.count += sign
    group.bytes += sign * bytes
    if (yields) this.queueBytes += sign * bytes
  }
}

function earlier(one: Publication | undefined, other: Publication | undefined): Publication | undefined {
  if (one === undefined || other === undefined) return one ?? other
  return one.order < other.order ? one : other
}

function keyOf({ message }: Publication): string {
  return `${message.retain ? 'r' : '-'}${message.topic}`
}

/** A heap of deadlines. Adding deadlines in ascending order, the usual case, takes constant time. */
class DeadlineHeap {
  private entries: Publication[] = []

  get first(): Publication | undefined {
    return this.entries[0]
  }

  /** @param waiting number of waiting publishes: settled ones are removed once they are more than half */
  push(publication: Publication, waiting: number): void {
    if (this.entries.length >= 2 * waiting + 64) {
      const left = this.entries.filter(({ isWaiting }) => isWaiting)
      this.entries = []
      for (const one of left) this.insert(one)
    }
    this.insert(publication)
  }

  pop(): void {
    const { entries } = this
    const last = entries.pop()
    if (last === undefined || entries.length === 0) return
    let at = 0
    for (;;) {
      const left = entries[2 * at + 1]
      const right = entries[2 * at + 2]
      if (left === undefined) break
      const isRight = right !== undefined && right.deadlineMs < left.deadlineMs
      const child = isRight ? right : left
      if (child.deadlineMs >= last.deadlineMs) break
      entries[at] = child
      at = 2 * at + (isRight ? 2 : 1)
    }
    entries[at] = last
  }

  clear(): void {
    if (this.entries.length > 0) this.entries = []
  }

  private insert(publication: Publication): void {
    const { entries } = this
    let at = entries.push(publication) - 1
    while (at > 0) {
      const above = (at - 1) >> 1
      const parent = entries[above]
      if (parent === undefined || parent.deadlineMs <= publication.deadlineMs) break
      entries[at] = parent
      at = above
    }
    entries[at] = publication
  }
}
