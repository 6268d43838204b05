import type { StoredSettlement } from '../core/outbound/message-store.js'
import { SqlTables } from './sql-tables.js'
import type { SqlValue } from './sqlite-engine.js'
import { checksumOf, journalLine, numberIn, type Row, textIn } from './store-records.js'

/** What the row `state` holds, so that a start does not count a million messages. */
export interface StoreState {
  readonly nextPosition: number
  readonly messages: number
  readonly bytes: number
  readonly setAside: number
}

/** A message without its content. */
export interface RecordHead {
  readonly position: number
  readonly messageId: string
  readonly topic: string
  readonly storedAtMs: number
  readonly bytes: number
}

const TABLES = {
  messages: {
    numbers: ['position', 'qos', 'retain', 'stored_at_ms', 'expires_at_ms', 'bytes', 'checksum'],
    bytes: ['message_id', 'topic', 'properties', 'payload'],
  },
  outcomes: {
    numbers: ['seq', 'stored_at_ms', 'settled_at_ms', 'reason_code'],
    bytes: ['message_id', 'topic', 'status', 'reason_string'],
  },
  set_aside: {
    numbers: [
      'seq',
      'position',
      'qos',
      'retain',
      'stored_at_ms',
      'expires_at_ms',
      'bytes',
      'checksum',
      'set_aside_at_ms',
    ],
    bytes: ['message_id', 'topic', 'properties', 'payload'],
  },
} as const

export type TableName = keyof typeof TABLES

/**
 * SELECT with every column of a table. A damaged record may hold a value of any type, and libsql ends the process when
 * text is not valid UTF-8. So text is read as bytes.
 */
export function selectFrom(table: TableName): string {
  const { numbers, bytes } = TABLES[table]
  const columns = [
    ...numbers.map(name => `CAST(${name} AS INTEGER) AS ${name}`),
    ...bytes.map(name => `CAST(${name} AS BLOB) AS ${name}`),
  ]
  return `SELECT ${columns.join(', ')} FROM ${table}`
}

const HEAD = `SELECT position, CAST(message_id AS BLOB) AS message_id, CAST(topic AS BLOB) AS topic,
  CAST(stored_at_ms AS INTEGER) AS stored_at_ms, CAST(bytes AS INTEGER) AS bytes FROM messages`
const COLUMNS =
  'position, message_id, topic, qos, retain, stored_at_ms, expires_at_ms, properties, payload, bytes, checksum'

/** The tables of a store of messages. */
export class StoreTables extends SqlTables {
  addMessage(record: SqlValue[]): void {
    this.run(`INSERT INTO messages (${COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, record)
  }

  rowsAfter(position: number, count: number): Row[] {
    return this.rows(`${selectFrom('messages')} WHERE position > ? ORDER BY position LIMIT ?`, [
      position,
      count,
    ])
  }

  row(position: number): Row | undefined {
    return this.rows(`${selectFrom('messages')} WHERE position = ?`, [position])[0]
  }

  head(position: number): RecordHead | undefined {
    return this.heads(`${HEAD} WHERE position = ?`, [position])[0]
  }

  firstHead(): RecordHead | undefined {
    return this.heads(`${HEAD} ORDER BY position LIMIT 1`, [])[0]
  }

  headsDue(nowMs: number, count: number): RecordHead[] {
    return this.heads(`${HEAD} WHERE expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ?`, [nowMs, count])
  }

  deleteMessage(position: number): void {
    this.run('DELETE FROM messages WHERE position = ?', [position])
  }

  setAside(position: number, nowMs: number): void {
    this.run(
      `INSERT INTO set_aside (${COLUMNS}, set_aside_at_ms) SELECT ${COLUMNS}, ? FROM messages WHERE position = ?`,
      [nowMs, position],
    )
  }

  trimSetAside(most: number): void {
    this.run('DELETE FROM set_aside WHERE seq <= (SELECT max(seq) FROM set_aside) - ?', [most])
  }

  addOutcome(settlement: StoredSettlement): void {
    const columns = 'message_id, topic, stored_at_ms, settled_at_ms, status, reason_code, reason_string'
    this.run(`INSERT INTO outcomes (${columns}) VALUES (?, ?, ?, ?, ?, ?, ?)`, journalLine(settlement))
  }

  trimOutcomes(most: number): void {
    this.run('DELETE FROM outcomes WHERE seq <= (SELECT max(seq) FROM outcomes) - ?', [most])
  }

  outcomes(messageId: string | undefined, limit: number): Row[] {
    if (messageId === undefined)
      return this.rows(`${selectFrom('outcomes')} ORDER BY seq DESC LIMIT ?`, [limit])
    const sql = `${selectFrom('outcomes')} WHERE message_id = ? ORDER BY seq DESC LIMIT ?`
    return this.rows(sql, [messageId, limit])
  }

  /** Undefined if there is none, or its checksum is wrong. */
  state(): StoreState | undefined {
    const [row] = this.rows(
      `SELECT CAST(next_position AS INTEGER) AS next_position, CAST(messages AS INTEGER) AS messages,
         CAST(bytes AS INTEGER) AS bytes, CAST(set_aside AS INTEGER) AS set_aside,
         CAST(checksum AS INTEGER) AS checksum FROM state`,
      [],
    )
    const state = {
      nextPosition: numberIn(row, 'next_position'),
      messages: numberIn(row, 'messages'),
      bytes: numberIn(row, 'bytes'),
      setAside: numberIn(row, 'set_aside'),
    }
    return numberIn(row, 'checksum') === checksumOf(Object.values(state)) ? state : undefined
  }

  saveState({ nextPosition, messages, bytes, setAside }: StoreState): void {
    const values = [nextPosition, messages, bytes, setAside]
    this.run('INSERT OR REPLACE INTO state VALUES (1, ?, ?, ?, ?, ?)', [...values, checksumOf(values)])
  }

  /** Counts everything. Takes as long as there are messages. */
  countedState(): StoreState {
    const sql =
      'SELECT count(*) AS messages, CAST(total(bytes) AS INTEGER) AS bytes, coalesce(max(position), 0) AS last FROM messages'
    const [row] = this.rows(sql, [])
    const [aside] = this.rows('SELECT count(*) AS total FROM set_aside', [])
    return {
      nextPosition: numberIn(row, 'last') + 1,
      messages: numberIn(row, 'messages'),
      bytes: numberIn(row, 'bytes'),
      setAside: numberIn(aside, 'total'),
    }
  }

  private heads(sql: string, values: SqlValue[]): RecordHead[] {
    return this.rows(sql, values).map(row => ({
      position: numberIn(row, 'position'),
      messageId: textIn(row, 'message_id'),
      topic: textIn(row, 'topic'),
      storedAtMs: numberIn(row, 'stored_at_ms'),
      bytes: numberIn(row, 'bytes'),
    }))
  }
}
