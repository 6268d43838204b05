import type { Publication } from './outbound-message.js'

/**
 * Publishes in order of arrival. A linked list, so that the cost of an operation does not depend on the number of
 * publishes.
 */
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

  /** The newer publish takes the position of the older one. */
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

/** A heap of deadlines. Adding deadlines in ascending order, the usual case, takes constant time. */
export class DeadlineHeap {
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
