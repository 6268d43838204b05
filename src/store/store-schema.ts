import { MqttError } from '../core/errors.js'
import type { SqlDatabase } from './sqlite-engine.js'
import { Contradiction } from './store-errors.js'
import { selectFrom } from './store-tables.js'

/** The tables of a kind of file. */
export interface Schema {
  /** Marks a file as one of this package. */
  readonly applicationId: number
  /** The steps from each version to the next. A released step is never changed. */
  readonly migrations: readonly string[]
  /** Statements that need every table and column. */
  readonly checks: readonly string[]
}

/** "mqtt". */
const STORE_ID = 0x6d717474
/** "mqti". */
const INBOX_ID = 0x6d717469

const STORE_TABLES = `CREATE TABLE messages (
     position INTEGER PRIMARY KEY,
     message_id TEXT NOT NULL,
     topic TEXT NOT NULL,
     qos INTEGER NOT NULL,
     retain INTEGER NOT NULL,
     stored_at_ms INTEGER NOT NULL,
     expires_at_ms INTEGER,
     properties TEXT,
     payload BLOB NOT NULL,
     bytes INTEGER NOT NULL,
     checksum INTEGER NOT NULL
   );
   CREATE INDEX messages_by_expiry ON messages (expires_at_ms) WHERE expires_at_ms IS NOT NULL;
   CREATE TABLE outcomes (
     seq INTEGER PRIMARY KEY,
     message_id TEXT NOT NULL,
     topic TEXT NOT NULL,
     stored_at_ms INTEGER NOT NULL,
     settled_at_ms INTEGER NOT NULL,
     status TEXT NOT NULL,
     reason_code INTEGER,
     reason_string TEXT
   );
   CREATE INDEX outcomes_by_message ON outcomes (message_id);
   CREATE TABLE set_aside (
     seq INTEGER PRIMARY KEY,
     position INTEGER NOT NULL,
     message_id, topic, qos, retain, stored_at_ms, expires_at_ms, properties, payload, bytes, checksum,
     set_aside_at_ms INTEGER NOT NULL
   );
   CREATE TABLE state (
     id INTEGER PRIMARY KEY CHECK (id = 1),
     next_position INTEGER NOT NULL,
     messages INTEGER NOT NULL,
     bytes INTEGER NOT NULL,
     set_aside INTEGER NOT NULL,
     checksum INTEGER NOT NULL
   );`

/** A file of messages. */
export const STORE_SCHEMA: Schema = {
  applicationId: STORE_ID,
  migrations: [STORE_TABLES],
  checks: [
    ...(['messages', 'outcomes', 'set_aside'] as const).map(selectFrom),
    'SELECT id, next_position, messages, bytes, set_aside, checksum FROM state',
  ],
}

/** `key` has no type, because one that is not valid text is kept as bytes. */
const INBOX_TABLES = `CREATE TABLE keys (
     seq INTEGER PRIMARY KEY,
     scope TEXT NOT NULL,
     key NOT NULL,
     added_at_ms INTEGER NOT NULL,
     checksum INTEGER NOT NULL
   );
   CREATE UNIQUE INDEX keys_by_key ON keys (scope, key);
   CREATE INDEX keys_by_scope ON keys (scope);
   CREATE TABLE scopes (
     name TEXT PRIMARY KEY,
     max_age_ms INTEGER NOT NULL,
     max_entries INTEGER NOT NULL
   );`

/** A file of keys. */
export const INBOX_SCHEMA: Schema = {
  applicationId: INBOX_ID,
  migrations: [INBOX_TABLES],
  checks: [
    'SELECT seq, scope, key, added_at_ms, checksum FROM keys',
    'SELECT name, max_age_ms, max_entries FROM scopes',
  ],
}

/**
 * Write-ahead log, and a commit that returns after fsync. A short wait is enough if an administrator inspects the file
 * with another tool.
 */
const SETTINGS = `
  PRAGMA busy_timeout = 2000;
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  PRAGMA cell_size_check = ON;
  PRAGMA cache_size = -8192;
  PRAGMA journal_size_limit = 16777216;`

/**
 * Sets the connection up, and creates or migrates the tables.
 * @throws MqttError `STORE_VERSION`, `STORE_CORRUPT`
 */
export function prepareDatabase(database: SqlDatabase, schema: Schema, title: string): void {
  const { applicationId, migrations } = schema
  database.exec('PRAGMA busy_timeout = 2000')
  assertOurs(database, schema, title)
  database.exec(SETTINGS)
  const version = pragma(database, 'user_version')
  const steps = migrations.slice(version)
  if (steps.length === 0) return assertTables(database, schema)
  const mark = `PRAGMA application_id = ${applicationId}; PRAGMA user_version = ${migrations.length};`
  database.exec(`BEGIN IMMEDIATE; ${steps.join('\n')} ${mark} COMMIT;`)
}

/** A flipped byte can rename a column. */
function assertTables(database: SqlDatabase, { checks }: Schema): void {
  try {
    for (const sql of checks) database.prepare(sql)
  } catch (cause) {
    throw new Contradiction('its tables are not those of a store', { cause })
  }
}

const OTHER = 'a database of another application'
const OWNERS: Readonly<Record<number, string>> = {
  [STORE_ID]: 'a store of sqliteStore()',
  [INBOX_ID]: 'an inbox of sqliteInbox()',
}

/**
 * Whether the file has tables yet.
 * @throws MqttError `STORE_VERSION`, `STORE_CORRUPT`
 */
export function assertOurs(
  database: SqlDatabase,
  { applicationId, migrations }: Schema,
  title: string,
): 'empty' | 'ours' {
  const isEmpty = database.prepare('SELECT 1 FROM sqlite_schema LIMIT 1').get() === undefined
  if (isEmpty) return 'empty'
  const id = pragma(database, 'application_id')
  if (id !== applicationId)
    throw new MqttError('STORE_CORRUPT', `${title}: it is ${OWNERS[id] ?? OTHER}; use another file`)
  const version = pragma(database, 'user_version')
  if (version > migrations.length)
    throw new MqttError(
      'STORE_VERSION',
      `${title}: it has version ${version}, and this version of nestjs-mqtt reads up to ${migrations.length}; update nestjs-mqtt, or use another file`,
    )
  return 'ours'
}

function pragma(database: SqlDatabase, name: string): number {
  const row: unknown = database.prepare(`PRAGMA ${name}`).get()
  const value: unknown = typeof row === 'object' && row !== null ? Reflect.get(row, name) : undefined
  return typeof value === 'number' ? value : 0
}
