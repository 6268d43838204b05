import type { Publication } from './outbound-message.js'

/** Publishes in the order in which they came. They are linked themselves, so that each costs the same however many wait. */
export class Lane {
  first: Publication | undefined = undefined
  private last: Publication | undefined = undefined

  add(publication: Publication): void {
    const { last } = this
    publication.before = last
    if (last === undefined) this.first = publication
    else last.after = publication
    this.last = publication
  }

  remove(publication: Publication): void {
    const { before, after } = publication
    if (before === undefined) this.first = after
    else before.after = after
    if (after === undefined) this.last = before
    else after.before = before
    publication.before = undefined
    publication.after = undefined
  }

  /** The newer one stands where the older one stood. */
  replace(older: Publication, newer: Publication): void {
    const { before, after } = older
    newer.before = before
    newer.after = after
    if (before === undefined) this.first = newer
    else before.after = newer
    if (after === undefined) this.last = newer
    else after.before = newer
    older.before = undefined
    older.after = undefined
  }
}

/** Deadlines, the first one at the top. Deadlines in order of entry, the usual case, cost a constant time. */
export class DeadlineHeap {
  private entries: Publication[] = []

  get first(): Publication | undefined {
    return this.entries[0]
  }

  /** @param waiting how many wait: what does not wait any more is removed once it is more than half */
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
