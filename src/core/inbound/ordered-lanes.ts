/** Something that waits for its turn. */
interface Waiting {
  /** What has the same key is taken in order, one at a time; undefined: whenever there is room. */
  readonly key: string | undefined
}

interface Lane<T> {
  readonly key: unknown
  waiting: T[]
  /** Taken, and not released. */
  busy: T | undefined
}

/**
 * One lane for each key: what waits in one is taken in order and one at a time, different lanes take turns, so that
 * a busy topic does not starve the others.
 */
export class OrderedLanes<T extends Waiting> {
  private readonly lanes = new Map<unknown, Lane<T>>()
  private readonly ready = new Set<Lane<T>>()
  private count = 0

  /** How many wait. */
  get size(): number {
    return this.count
  }

  /** Whether nothing waits and no lane is busy. */
  get isEmpty(): boolean {
    return this.lanes.size === 0
  }

  /** Whether one may be taken. */
  get isReady(): boolean {
    return this.ready.size > 0
  }

  add(item: T): void {
    const key = item.key ?? item
    let lane = this.lanes.get(key)
    if (lane === undefined) {
      lane = { key, waiting: [], busy: undefined }
      this.lanes.set(key, lane)
    }
    lane.waiting.push(item)
    this.count += 1
    if (lane.busy === undefined) this.ready.add(lane)
  }

  /** Takes the next one whose lane is free, and keeps the lane busy until `release`. */
  take(): T | undefined {
    for (const lane of this.ready) {
      const item = lane.waiting.shift()
      this.ready.delete(lane)
      if (item === undefined) continue
      lane.busy = item
      this.count -= 1
      return item
    }
    return undefined
  }

  /** One that was taken has ended. */
  release(item: T): void {
    const key = item.key ?? item
    const lane = this.lanes.get(key)
    if (lane === undefined) return
    lane.busy = undefined
    if (lane.waiting.length > 0) this.ready.add(lane)
    else this.lanes.delete(key)
  }

  /** What was taken of the lane in which this one waits, and keeps it busy. */
  ahead(item: T): T | undefined {
    return this.lanes.get(item.key ?? item)?.busy
  }

  /** Takes out one that waits. @returns whether it waited */
  remove(item: T): boolean {
    const lane = this.lanes.get(item.key ?? item)
    const index = lane?.waiting.indexOf(item) ?? -1
    if (lane === undefined || index === -1) return false
    lane.waiting.splice(index, 1)
    this.count -= 1
    if (lane.waiting.length === 0) this.forget(lane)
    return true
  }

  private forget(lane: Lane<T>): void {
    this.ready.delete(lane)
    if (lane.busy === undefined) this.lanes.delete(lane.key)
  }
}
