import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { MqttError } from '../core/errors.js'
import type { StoreContents } from '../core/outbound/message-store.js'
import { loadEngine } from './sqlite-engine.js'
import { storeError } from './store-errors.js'
import { numberIn, type Row, settlementIn, textIn } from './store-records.js'
import { assertOurs, STORE_SCHEMA } from './store-schema.js'
import { StoreTables, selectFrom } from './store-tables.js'

/** What waits for one topic. */
interface TopicInStore {
  readonly topic: string
  readonly messages: number
  readonly bytes: number
  readonly oldestStoredAtMs: number
}

/** What a file of a store contains. */
export interface StoreFileReport extends Omit<StoreContents, 'fullness'> {
  readonly file: string
  /** The topics with the most messages. */
  readonly topics: readonly TopicInStore[]
  /** How many topics there are. */
  readonly topicCount: number
  /** Outcomes in the journal, by status. */
  readonly outcomes: Readonly<Record<string, number>>
  /** The last messages that did not arrive, the newest first. */
  readonly lastUndelivered: readonly ReturnType<typeof settlementIn>[]
}

const MOST_LINES = 20

/**
 * Reads a file of a store without changing it, also while a service uses it.
 * @throws MqttError `STORE_FAILED`, `STORE_VERSION`, `STORE_CORRUPT`
 */
export async function reportOnStore(given: string): Promise<StoreFileReport> {
  const file = resolve(given)
  if (!existsSync(file)) throw new MqttError('STORE_FAILED', `the store ${file} does not exist`)
  const engine = await loadEngine()
  let tables: StoreTables | undefined
  try {
    const database = engine.open(file, { readOnly: true })
    tables = new StoreTables(database)
    database.exec('PRAGMA busy_timeout = 2000')
    if (assertOurs(database, STORE_SCHEMA, `the store ${file}`) === 'empty')
      throw new MqttError('STORE_CORRUPT', `the store ${file}: it is empty; no service has opened it`)
    return contentsOf(tables, file)
  } catch (error) {
    throw storeError(`the store ${file}`, error)
  } finally {
    tables?.close()
  }
}

function contentsOf(tables: StoreTables, file: string): StoreFileReport {
  const { messages, bytes, setAside } = tables.state() ?? tables.countedState()
  const oldest = tables.firstHead()
  const topics = tables.rows(
    `SELECT CAST(topic AS BLOB) AS topic, count(*) AS messages, CAST(total(bytes) AS INTEGER) AS bytes,
       CAST(min(stored_at_ms) AS INTEGER) AS oldest
     FROM messages GROUP BY CAST(topic AS BLOB) ORDER BY messages DESC, topic LIMIT ?`,
    [MOST_LINES],
  )
  const [counted] = tables.rows('SELECT count(DISTINCT CAST(topic AS BLOB)) AS topics FROM messages', [])
  const statuses = tables.rows(
    'SELECT CAST(status AS BLOB) AS status, count(*) AS total FROM outcomes GROUP BY status',
    [],
  )
  const undelivered = tables.rows(
    `${selectFrom('outcomes')} WHERE status <> 'delivered' ORDER BY seq DESC LIMIT ?`,
    [MOST_LINES],
  )
  return {
    file,
    messages,
    bytes,
    ...(oldest === undefined ? {} : { oldestStoredAtMs: oldest.storedAtMs }),
    setAside,
    topics: topics.map(topicIn),
    topicCount: numberIn(counted, 'topics'),
    outcomes: Object.fromEntries(statuses.map(row => [textIn(row, 'status'), numberIn(row, 'total')])),
    lastUndelivered: undelivered.map(settlementIn),
  }
}

function topicIn(row: Row): TopicInStore {
  return {
    topic: textIn(row, 'topic'),
    messages: numberIn(row, 'messages'),
    bytes: numberIn(row, 'bytes'),
    oldestStoredAtMs: numberIn(row, 'oldest'),
  }
}
