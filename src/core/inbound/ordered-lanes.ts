/** Something that waits for its turn. */
interface Waiting {
  /** What has the same key is taken in order, one at a time; undefined: whenever there is room. */
  readonly key: string | undefined
}

interface Lane<T> {
  readonly key: unknown
  waiting: T[]
  isBusy: boolean
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
      lane = { key, waiting: [], isBusy: false }
      this.lanes.set(key, lane)
    }
    lane.waiting.push(item)
    this.count += 1
    if (!lane.isBusy) this.ready.add(lane)
  }

  /** Takes the next one whose lane is free, and keeps the lane busy until `release`. */
  take(): T | undefined {
    for (const lane of this.ready) {
      const item = lane.waiting.shift()
      this.ready.delete(lane)
      if (item === undefined) continue
      lane.isBusy = true
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
    lane.isBusy = false
    if (lane.waiting.length > 0) this.ready.add(lane)
    else this.lanes.delete(key)
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
    if (!lane.isBusy) this.lanes.delete(lane.key)
  }
}
