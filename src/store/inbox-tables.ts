import { SqlTables } from './sql-tables.js'
import type { SqlValue } from './sqlite-engine.js'
import type { Rescue, StoreFormat } from './store-connection.js'
import { checksumOf, numberIn, textIn } from './store-records.js'
import { readable, rowsOf } from './store-rescue.js'
import { INBOX_SCHEMA, prepareDatabase } from './store-schema.js'

/** A key that a handler remembers. */
export interface InboxKey {
  readonly scope: string
  readonly key: string
}

/** The limits of a scope. */
export interface InboxLimits {
  readonly scope: string
  readonly maxAgeMs: number
  readonly maxEntries: number
}

/** A remembered key, without the key. */
interface KeyHead {
  readonly seq: number
  readonly addedAtMs: number
}

/** Text is read as bytes, because libsql ends the process when text is not valid UTF-8. */
const SELECT_KEYS = `SELECT CAST(seq AS INTEGER) AS seq, typeof(key) AS type, CAST(scope AS BLOB) AS scope, CAST(key AS BLOB) AS key,
  CAST(added_at_ms AS INTEGER) AS added_at_ms, CAST(checksum AS INTEGER) AS checksum FROM keys`

/** The tables of an inbox. */
export class InboxTables extends SqlTables {
  /** Undefined if the key is not there. */
  find({ scope, key }: InboxKey): (KeyHead & { readonly isDamaged: boolean }) | undefined {
    const sql = `SELECT CAST(seq AS INTEGER) AS seq, CAST(added_at_ms AS INTEGER) AS added_at_ms,
      CAST(checksum AS INTEGER) AS checksum FROM keys WHERE scope = ? AND key = ?`
    const [row] = this.rows(sql, [scope.toWellFormed(), keyValue(key)])
    if (row === undefined) return undefined
    const addedAtMs = numberIn(row, 'added_at_ms')
    const isDamaged = numberIn(row, 'checksum') !== checksumOfKey(scope, keyValue(key), addedAtMs)
    return { seq: numberIn(row, 'seq'), addedAtMs, isDamaged }
  }

  /** Becomes the newest key of its scope. */
  put({ scope, key }: InboxKey, addedAtMs: number): void {
    const value = keyValue(key)
    this.insert([scope.toWellFormed(), value, addedAtMs, checksumOfKey(scope, value, addedAtMs)])
  }

  insert(record: SqlValue[]): void {
    this.run('INSERT OR REPLACE INTO keys (scope, key, added_at_ms, checksum) VALUES (?, ?, ?, ?)', record)
  }

  count(scope: string): number {
    const [row] = this.rows('SELECT count(*) AS total FROM keys WHERE scope = ?', [scope.toWellFormed()])
    return numberIn(row, 'total')
  }

  /** The keys of a scope that were added first. */
  first(scope: string, count: number): KeyHead[] {
    const sql = `SELECT CAST(seq AS INTEGER) AS seq, CAST(added_at_ms AS INTEGER) AS added_at_ms
      FROM keys INDEXED BY keys_by_scope WHERE scope = ? ORDER BY seq LIMIT ?`
    return this.rows(sql, [scope.toWellFormed(), count]).map(row => ({
      seq: numberIn(row, 'seq'),
      addedAtMs: numberIn(row, 'added_at_ms'),
    }))
  }

  /** Removes the keys of a scope up to this one. */
  removeUntil(scope: string, seq: number): void {
    this.run('DELETE FROM keys INDEXED BY keys_by_scope WHERE scope = ? AND seq <= ?', [
      scope.toWellFormed(),
      seq,
    ])
  }

  scopes(): InboxLimits[] {
    const sql = `SELECT CAST(name AS BLOB) AS name, CAST(max_age_ms AS INTEGER) AS max_age_ms,
      CAST(max_entries AS INTEGER) AS max_entries FROM scopes`
    return this.rows(sql, []).map(row => ({
      scope: textIn(row, 'name'),
      maxAgeMs: numberIn(row, 'max_age_ms'),
      maxEntries: numberIn(row, 'max_entries'),
    }))
  }

  saveScope({ scope, maxAgeMs, maxEntries }: InboxLimits): void {
    this.run('INSERT OR REPLACE INTO scopes VALUES (?, ?, ?)', [scope.toWellFormed(), maxAgeMs, maxEntries])
  }

  /** The number of the newest key. */
  last(): number {
    return numberIn(this.rows('SELECT max(seq) AS last FROM keys', [])[0], 'last')
  }

  /** The same from an index, which may be intact when the table is not. */
  lastInIndex(): number {
    const sql = 'SELECT max(seq) AS last FROM keys INDEXED BY keys_by_scope WHERE scope IS NOT NULL'
    return numberIn(this.rows(sql, [])[0], 'last')
  }
}

/** A file of keys. Its state is the number of the newest one. */
export const KEYS: StoreFormat<InboxTables, number> = {
  name: 'inbox',
  connect: (database, title) => {
    prepareDatabase(database, INBOX_SCHEMA, title)
    return new InboxTables(database)
  },
  state: tables => tables.last(),
  rescue,
}

function rescue(from: InboxTables, to: InboxTables, known: number | undefined): Rescue<number> {
  const last = known ?? readable(() => from.last()) ?? readable(() => from.lastInIndex()) ?? 0
  let kept = 0
  to.begin()
  for (const limits of readable(() => from.scopes()) ?? []) to.saveScope(limits)
  for (const row of rowsOf(from, SELECT_KEYS, 'seq', last)) {
    const scope = textIn(row, 'scope')
    const key = textIn(row, 'type') === 'blob' ? bytesOf(row['key']) : textIn(row, 'key')
    const addedAtMs = numberIn(row, 'added_at_ms')
    const checksum = checksumOfKey(scope, key, addedAtMs)
    if (checksum !== numberIn(row, 'checksum')) continue
    to.insert([scope, key, addedAtMs, checksum])
    kept += 1
  }
  to.commit()
  const text = `${kept} keys were kept. A message whose key could not be read is handled again if it is repeated`
  return { state: to.last(), lost: 0, kept: text }
}

/** A string that is not valid Unicode is kept as bytes, because SQLite would make it equal to others. */
function keyValue(key: string): SqlValue {
  return key.isWellFormed() ? key : Buffer.from(key, 'utf16le')
}

function bytesOf(value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value
  return value instanceof ArrayBuffer ? new Uint8Array(value) : new Uint8Array()
}

function checksumOfKey(scope: string, key: SqlValue, addedAtMs: number): number {
  const text = key instanceof Uint8Array ? Buffer.from(key).toString('hex') : key
  return checksumOf([scope.toWellFormed(), typeof key, text, addedAtMs])
}
