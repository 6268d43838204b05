import type { InboxKey, InboxLimits, InboxTables } from './inbox-tables.js'
import type { StoreConnection } from './store-connection.js'
import { isDamage, isFull, storeError, type WriteResult } from './store-errors.js'

/** Keys that one commit removes from a scope, so that a commit does not take long. */
const MOST_REMOVED = 1_000
/** Keys beyond `maxAgeMs` that one commit removes. */
const OLD_AT_ONCE = 20

/** A file of keys. Every call blocks until the disk has completed it, so the file is used in a separate thread. */
export class InboxFile {
  /** Keys of each scope, counted when the scope is first used. */
  private readonly counts = new Map<string, number>()
  private readonly limits = new Map<string, InboxLimits>()
  private readonly repairs: string[] = []
  private last: number

  constructor(private readonly connection: StoreConnection<InboxTables, number>) {
    this.last = connection.open()
    this.guarded(tables => {
      for (const limits of tables.scopes()) this.limits.set(limits.scope, limits)
    })
  }

  /** Whether the key was added less than `maxAgeMs` ago. */
  has(asked: InboxKey & InboxLimits, nowMs: number): boolean {
    const found = this.guarded(tables => tables.find(asked))
    if (found?.isDamaged)
      this.repairs.push(
        `${this.connection.title}: the record of a key of "${asked.scope}" is damaged, so its message is handled again`,
      )
    return found !== undefined && !found.isDamaged && nowMs - found.addedAtMs < asked.maxAgeMs
  }

  /** Adds all of them in one commit. */
  add(additions: readonly (InboxKey & InboxLimits)[], nowMs: number): WriteResult[] {
    try {
      this.commit(tables => {
        for (const addition of additions) this.put(tables, addition, nowMs)
        for (const scope of new Set(additions.map(addition => addition.scope)))
          this.trim(tables, scope, nowMs)
      })
      return additions.map(() => ({ value: undefined }))
    } catch (error) {
      const rejection = { error: storeError(this.connection.title, error) }
      return additions.map(() => rejection)
    }
  }

  /** Removes some of the keys that are beyond the limits of their scopes. Returns whether there may be more. */
  trimSome(nowMs: number): boolean {
    let isMore = false
    this.commit(tables => {
      for (const scope of this.limits.keys()) if (this.trim(tables, scope, nowMs)) isMore = true
    })
    return isMore
  }

  takeRepairs(): string[] {
    return [...this.connection.takeRepairs(), ...this.repairs.splice(0)]
  }

  close(): void {
    this.connection.close()
  }

  private put(tables: InboxTables, { key, ...limits }: InboxKey & InboxLimits, nowMs: number): void {
    const { scope, maxAgeMs, maxEntries } = limits
    const known = this.limits.get(scope)
    if (known?.maxAgeMs !== maxAgeMs || known.maxEntries !== maxEntries) {
      tables.saveScope(limits)
      this.limits.set(scope, limits)
    }
    const count = this.countOf(tables, scope)
    if (tables.find({ scope, key }) === undefined) this.counts.set(scope, count + 1)
    tables.put({ scope, key }, Math.round(nowMs))
  }

  /** The clock may have been set back, so the keys are removed in the order in which they were added. */
  private trim(tables: InboxTables, scope: string, nowMs: number): boolean {
    const limits = this.limits.get(scope)
    if (limits === undefined) return false
    const count = this.countOf(tables, scope)
    const excess = Math.max(0, count - limits.maxEntries)
    const most = Math.min(MOST_REMOVED, excess + OLD_AT_ONCE)
    let removed = 0
    let last: number | undefined
    for (const { seq, addedAtMs } of tables.first(scope, most)) {
      if (removed >= excess && nowMs - addedAtMs < limits.maxAgeMs) break
      last = seq
      removed += 1
    }
    if (last === undefined) return false
    tables.removeUntil(scope, last)
    this.counts.set(scope, count - removed)
    return removed === most
  }

  private countOf(tables: InboxTables, scope: string): number {
    const count = this.counts.get(scope) ?? tables.count(scope)
    this.counts.set(scope, count)
    return count
  }

  private commit(work: (tables: InboxTables) => void): void {
    this.guarded(tables => {
      try {
        this.transaction(tables, work)
      } catch (error) {
        if (!isFull(error)) throw error
        tables.checkpoint()
        this.transaction(tables, work)
      }
    })
  }

  private transaction(tables: InboxTables, work: (tables: InboxTables) => void): void {
    try {
      tables.begin()
      work(tables)
      tables.commit()
      this.last = tables.last()
    } catch (error) {
      tables.rollback()
      this.counts.clear()
      this.limits.clear()
      throw error
    }
  }

  /** Runs `work`. If the file is damaged, it is repaired, and `work` runs again. */
  private guarded<R>(work: (tables: InboxTables) => R): R {
    try {
      return this.connection.run(work)
    } catch (error) {
      if (!isDamage(error)) throw error
      this.counts.clear()
      this.limits.clear()
      this.last = this.connection.repair(this.last)
      return this.connection.run(work)
    }
  }
}
