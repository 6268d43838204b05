import type { SqlTables } from './sql-tables.js'
import type { SqlValue } from './sqlite-engine.js'
import type { Rescue, StoreFormat } from './store-connection.js'
import { isDamage } from './store-errors.js'
import { numberIn, type Row } from './store-records.js'
import { prepareDatabase, STORE_SCHEMA } from './store-schema.js'
import { type StoreState, StoreTables, selectFrom, type TableName } from './store-tables.js'

const ROWS_AT_ONCE = 200

/** A file of messages. */
export const MESSAGES: StoreFormat<StoreTables, StoreState> = {
  name: 'store',
  connect: (database, title) => {
    prepareDatabase(database, STORE_SCHEMA, title)
    return new StoreTables(database)
  },
  state: tables => {
    const saved = tables.state()
    if (saved !== undefined) return saved
    const counted = tables.countedState()
    tables.saveState(counted)
    return counted
  },
  rescue,
}

/**
 * Copies every record of a damaged file that can be read into an empty one.
 * @param known what the file contained before the damage, if that is known
 */
function rescue(from: StoreTables, to: StoreTables, known: StoreState | undefined): Rescue<StoreState> {
  const before = known ?? readable(() => from.state())
  const last = before === undefined ? lastOf(from) : before.nextPosition - 1
  to.begin()
  for (const table of ['outcomes', 'set_aside'] as const)
    for (const row of rowsOf(from, selectFrom(table), 'seq', readable(() => maxOf(from, table)) ?? 0))
      insert(to, table, row)
  const copied = { messages: 0, bytes: 0 }
  for (const row of rowsOf(from, selectFrom('messages'), 'position', last)) {
    // A record whose checksum is wrong is set aside when it is read.
    insert(to, 'messages', row)
    copied.messages += 1
    copied.bytes += numberIn(row, 'bytes')
  }
  const setAside = before?.setAside ?? 0
  const state = { nextPosition: last + 1, ...copied, setAside }
  to.saveState(state)
  to.commit()
  const lost = before === undefined ? 0 : Math.max(0, before.messages - copied.messages)
  return { state, lost, kept: `${copied.messages} messages were kept, ${lost} could not be read` }
}

/** The rows of a SELECT without WHERE in ascending order, without those on damaged pages. */
export function* rowsOf(from: SqlTables, select: string, key: string, last: number): Generator<Row> {
  let after = 0
  while (after < last) {
    const start = after
    const rows = readable(() =>
      from.rows(`${select} WHERE ${key} > ? ORDER BY ${key} LIMIT ?`, [start, ROWS_AT_ONCE]),
    )
    if (rows !== undefined && isAscending(rows, key, start, last)) {
      if (rows.length === 0) return
      yield* rows
      after = numberIn(rows.at(-1), key)
      continue
    }
    after = Math.min(last, start + ROWS_AT_ONCE)
    for (let at = start + 1; at <= after; at += 1) {
      const row = readable(() => from.rows(`${select} WHERE ${key} = ?`, [at])[0])
      if (row !== undefined) yield row
    }
  }
}

/** Damaged pages that point to each other can return any rows. */
function isAscending(rows: readonly Row[], key: string, after: number, last: number): boolean {
  let before = after
  return rows.every(row => {
    const at = numberIn(row, key)
    const isNext = at > before && at <= last
    before = at
    return isNext
  })
}

/** Read as bytes. */
const TEXTS: ReadonlySet<string> = new Set(['message_id', 'topic', 'properties', 'status', 'reason_string'])

function insert(to: StoreTables, table: TableName, row: Row): void {
  const columns = Object.keys(row)
  const places = columns.map(name => (TEXTS.has(name) ? 'CAST(? AS TEXT)' : '?')).join(', ')
  to.run(
    `INSERT OR IGNORE INTO ${table} (${columns.join(', ')}) VALUES (${places})`,
    Object.values(row).map(sqlValueOf),
  )
}

function sqlValueOf(value: unknown): SqlValue {
  if (typeof value === 'number' || typeof value === 'string' || value instanceof Uint8Array) return value
  return value instanceof ArrayBuffer ? new Uint8Array(value) : null
}

function lastOf(from: StoreTables): number {
  return maxOf(from, 'messages', 'position')
}

function maxOf(from: StoreTables, table: TableName, key = 'seq'): number {
  return numberIn(from.rows(`SELECT max(${key}) AS last FROM ${table}`, [])[0], 'last')
}

export function readable<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (isDamage(error)) return undefined
    throw error
  }
}
