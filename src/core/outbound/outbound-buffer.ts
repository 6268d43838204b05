import { DeadlineHeap } from './deadline-heap.js'
import type { Waiting } from './outbound-message.js'
import type { Admission, OutboundQueue } from './outbound-queue.js'
import type { DropReason } from './publish-outcome.js'
import { POLICIES } from './when-blocked.js'

export interface BufferLimits {
  /** Messages kept by `latest`, `queue` and `wait` together. */
  readonly maxQueued: number
  /** Bytes of these. */
  readonly maxQueuedBytes: number
  readonly overflow: 'drop-oldest' | 'drop-newest'
}

type Displaced = readonly [Waiting, DropReason]

/** A place in the order, which the newest message of a topic takes over from the one before it. */
interface Place {
  waiting: Waiting
  readonly order: number
}

type Lane = Map<number, Place>

/** Each has some hundred bytes besides its payload. */
const MAX_BACKLOG_MESSAGES = 20_000

const NONE: readonly Displaced[] = []

/**
 * What waits to be written, in order. Messages of QoS 0 may overtake those of QoS 1 and 2 that wait for an answer
 * to earlier ones; the order within each kind is kept.
 */
export class OutboundBuffer implements OutboundQueue {
  /** How many wait. */
  size = 0
  private readonly plain: Lane = new Map()
  private readonly acknowledged: Lane = new Map()
  private readonly places = new Map<Waiting, Place>()
  /** The newest of each topic. A retained message is replaced by a retained one only. */
  private readonly latest = new Map<string, Place>()
  /** Those of `queue`, oldest first. */
  private readonly queue = new Set<Waiting>()
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
    return this.size === 0
      ? Number.POSITIVE_INFINITY
      : (this.deadlines.first?.deadlineMs ?? Number.POSITIVE_INFINITY)
  }

  /** Whether a message of this QoS has none before it. */
  isEmpty(qos: 0 | 1 | 2): boolean {
    return this.size === 0 || this.lane(qos).size === 0
  }

  /** @param backlogBytes what `drop` may hold back: a burst that the wire takes in the moments to come */
  add(waiting: Waiting, backlogBytes: number): Admission {
    const replaced = POLICIES[waiting.mode].isReplaced ? this.replace(waiting) : undefined
    if (replaced !== undefined) return replaced
    const displaced = this.makeRoom(waiting, backlogBytes)
    if (displaced === undefined)
      return { isAdmitted: false, reason: POLICIES[waiting.mode].isKept ? 'queue-full' : 'backlog' }
    this.insert(waiting)
    return { isAdmitted: true, displaced }
  }

  /** The next in order; without `mayAcknowledge` the next of QoS 0. */
  next(mayAcknowledge: boolean): Waiting | undefined {
    const plain = first(this.plain)
    const acknowledged = mayAcknowledge ? first(this.acknowledged) : undefined
    if (plain === undefined || acknowledged === undefined) return (plain ?? acknowledged)?.waiting
    return plain.order < acknowledged.order ? plain.waiting : acknowledged.waiting
  }

  /** @returns whether it was waiting */
  remove(waiting: Waiting): boolean {
    const place = this.places.get(waiting)
    if (place === undefined) return false
    this.places.delete(waiting)
    this.lane(qosOf(waiting)).delete(place.order)
    this.account(waiting, -1)
    if (this.queue.delete(waiting)) this.queueBytes -= waiting.bytes
    const key = keyOf(waiting)
    if (this.latest.get(key) === place) this.latest.delete(key)
    return true
  }

  /** Takes out all that `picks`. */
  takeAll(picks: (waiting: Waiting) => boolean): Waiting[] {
    const taken = [...this.places.keys()].filter(picks)
    for (const waiting of taken) this.remove(waiting)
    return taken
  }

  /** Takes out what must not be written any more. */
  takeLate(nowMs: number): Waiting[] {
    if (nowMs < this.nextDeadlineMs) return []
    const late: Waiting[] = []
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

  /** When the oldest message came in. */
  oldestMs(): number | undefined {
    let oldestMs: number | undefined
    for (const { enteredMs } of this.places.keys()) oldestMs = Math.min(oldestMs ?? enteredMs, enteredMs)
    return oldestMs
  }

  private lane(qos: 0 | 1 | 2): Lane {
    return qos === 0 ? this.plain : this.acknowledged
  }

  /** The newer message goes where the older one stood, so that every topic gets its turn. */
  private replace(waiting: Waiting): Admission | undefined {
    const place = this.latest.get(keyOf(waiting))
    if (place === undefined) return undefined
    const older = place.waiting
    if (this.kept.bytes + waiting.bytes - older.bytes > this.limits.maxQueuedBytes)
      return { isAdmitted: false, reason: 'queue-full' }
    if (this.lane(qosOf(older)) === this.lane(qosOf(waiting))) this.takeOver(place, waiting)
    else {
      this.remove(older)
      this.insert(waiting)
    }
    return { isAdmitted: true, displaced: [[older, 'superseded']] }
  }

  private takeOver(place: Place, waiting: Waiting): void {
    this.places.delete(place.waiting)
    this.account(place.waiting, -1)
    place.waiting = waiting
    this.places.set(waiting, place)
    this.account(waiting, 1)
    this.expect(waiting)
  }

  /** What must go for this one, or undefined where that does not help. */
  private makeRoom(waiting: Waiting, backlogBytes: number): readonly Displaced[] | undefined {
    const { isKept, givesWay } = POLICIES[waiting.mode]
    if (!isKept) {
      const { count, bytes } = this.backlog
      if (count >= MAX_BACKLOG_MESSAGES) return undefined
      return count > 0 && bytes + waiting.bytes > backlogBytes ? undefined : NONE
    }
    const { maxQueued, maxQueuedBytes, overflow } = this.limits
    const fits = () => this.kept.count < maxQueued && this.kept.bytes + waiting.bytes <= maxQueuedBytes
    if (fits()) return NONE
    if (!givesWay || overflow === 'drop-newest' || waiting.bytes > maxQueuedBytes) return undefined
    return this.displace(waiting, fits)
  }

  private displace(waiting: Waiting, fits: () => boolean): readonly Displaced[] | undefined {
    // What others keep may leave no room, whatever goes.
    if (
      this.queue.size === 0 ||
      this.kept.bytes - this.queueBytes + waiting.bytes > this.limits.maxQueuedBytes
    )
      return undefined
    const displaced: Displaced[] = []
    for (const oldest of this.queue) {
      if (fits()) break
      this.remove(oldest)
      displaced.push([oldest, 'queue-full'])
    }
    return displaced
  }

  private insert(waiting: Waiting): void {
    const place: Place = { waiting, order: this.entered++ }
    this.places.set(waiting, place)
    this.lane(qosOf(waiting)).set(place.order, place)
    this.account(waiting, 1)
    if (POLICIES[waiting.mode].givesWay) {
      this.queue.add(waiting)
      this.queueBytes += waiting.bytes
    }
    if (POLICIES[waiting.mode].isReplaced) this.latest.set(keyOf(waiting), place)
    this.expect(waiting)
  }

  private expect(waiting: Waiting): void {
    if (waiting.deadlineMs === Number.POSITIVE_INFINITY) return
    this.deadlines.compact(this.places)
    this.deadlines.push(waiting)
  }

  private account({ mode, bytes }: Waiting, sign: 1 | -1): void {
    const group = POLICIES[mode].isKept ? this.kept : this.backlog
    this.size += sign
    group.count += sign
    group.bytes += sign * bytes
  }
}

function first(lane: Lane): Place | undefined {
  for (const place of lane.values()) return place
  return undefined
}

const qosOf = ({ publication }: Waiting): 0 | 1 | 2 => publication.message.qos

function keyOf({ publication: { message } }: Waiting): string {
  return `${message.retain ? 'r' : '-'}${message.topic}`
}
