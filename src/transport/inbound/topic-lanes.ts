/** Something that waits for its turn on a topic. */
interface Waiting {
  readonly topic: string
}

interface Lane<T> {
  readonly topic: string
  waiting: T[]
  isBusy: boolean
}

/**
 * One lane for each topic: what waits on one topic is taken in order and one at a time, different topics take
 * turns, so that a busy topic does not starve the others.
 */
export class TopicLanes<T extends Waiting> {
  private readonly lanes = new Map<string, Lane<T>>()
  private readonly ready = new Set<Lane<T>>()
  private count = 0

  /** How many wait. */
  get size(): number {
    return this.count
  }

  add(item: T): void {
    const lane = this.lanes.get(item.topic) ?? { topic: item.topic, waiting: [], isBusy: false }
    this.lanes.set(item.topic, lane)
    lane.waiting.push(item)
    this.count += 1
    if (!lane.isBusy) this.ready.add(lane)
  }

  /** Takes the next one whose topic is free, and keeps its topic busy until `release`. */
  take(): T | undefined {
    const [lane] = this.ready
    const item = lane?.waiting.shift()
    if (lane === undefined || item === undefined) return undefined
    this.ready.delete(lane)
    lane.isBusy = true
    this.count -= 1
    return item
  }

  release(topic: string): void {
    const lane = this.lanes.get(topic)
    if (lane === undefined) return
    lane.isBusy = false
    if (lane.waiting.length > 0) this.ready.add(lane)
    else this.lanes.delete(topic)
  }

  /** Takes out one that waits. */
  remove(item: T): void {
    const lane = this.lanes.get(item.topic)
    const index = lane?.waiting.indexOf(item) ?? -1
    if (lane === undefined || index === -1) return
    lane.waiting.splice(index, 1)
    this.count -= 1
    this.forgetIfEmpty(lane)
  }

  /** Takes out everything that waits and fulfils `condition`, in the order of each topic. */
  removeAll(condition: (item: T) => boolean): T[] {
    const taken: T[] = []
    for (const lane of [...this.lanes.values()]) {
      const kept: T[] = []
      for (const item of lane.waiting) (condition(item) ? taken : kept).push(item)
      lane.waiting = kept
      this.forgetIfEmpty(lane)
    }
    this.count -= taken.length
    return taken
  }

  private forgetIfEmpty(lane: Lane<T>): void {
    if (lane.waiting.length > 0) return
    this.ready.delete(lane)
    if (!lane.isBusy) this.lanes.delete(lane.topic)
  }
}
