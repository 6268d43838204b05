import type { Waiting } from './outbound-message.js'

/** Deadlines, the first one at the top. Deadlines in order of entry, the usual case, cost a constant time. */
export class DeadlineHeap {
  private entries: Waiting[] = []

  get first(): Waiting | undefined {
    return this.entries[0]
  }

  push(waiting: Waiting): void {
    const { entries } = this
    let at = entries.push(waiting) - 1
    while (at > 0) {
      const above = (at - 1) >> 1
      const parent = entries[above]
      if (parent === undefined || parent.deadlineMs <= waiting.deadlineMs) break
      entries[at] = parent
      at = above
    }
    entries[at] = waiting
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

  /** Forgets what does not wait any more, once that is more than half. */
  compact(waits: ReadonlyMap<Waiting, unknown>): void {
    if (this.entries.length < 2 * waits.size + 64) return
    const left = this.entries.filter(waiting => waits.has(waiting))
    this.entries = []
    for (const waiting of left) this.push(waiting)
  }
}
