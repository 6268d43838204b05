import { MqttError } from '../core/errors.js'
import type { SqlDatabase } from './sqlite-engine.js'
import { Contradiction } from './store-errors.js'
import { selectFrom } from './store-tables.js'

/** Marks a file as a store of this package: "mqtt". */
const APPLICATION_ID = 0x6d717474

/** The steps from each version of the schema to the next. A released step is never changed. */
const MIGRATIONS: readonly string[] = [
  `CREATE TABLE messages (
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
   );`,
]

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
export function prepareDatabase(database: SqlDatabase, file: string): void {
  database.exec('PRAGMA busy_timeout = 2000')
  assertOurs(database, file)
  database.exec(SETTINGS)
  const version = pragma(database, 'user_version')
  const steps = MIGRATIONS.slice(version)
  if (steps.length === 0) return assertTables(database)
  const mark = `PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${MIGRATIONS.length};`
  database.exec(`BEGIN IMMEDIATE; ${steps.join('\n')} ${mark} COMMIT;`)
}

/** A flipped byte can rename a column. */
function assertTables(database: SqlDatabase): void {
  try {
    for (const table of ['messages', 'outcomes', 'set_aside'] as const) database.prepare(selectFrom(table))
    database.prepare('SELECT id, next_position, messages, bytes, set_aside, checksum FROM state')
  } catch (cause) {
    throw new Contradiction('its tables are not those of a store', { cause })
  }
}

/**
 * Whether the file has tables yet.
 * @throws MqttError `STORE_VERSION`, `STORE_CORRUPT`
 */
export function assertOurs(database: SqlDatabase, file: string): 'empty' | 'ours' {
  const isEmpty = database.prepare('SELECT 1 FROM sqlite_schema LIMIT 1').get() === undefined
  if (isEmpty) return 'empty'
  if (pragma(database, 'application_id') !== APPLICATION_ID)
    throw new MqttError(
      'STORE_CORRUPT',
      `the store ${file}: it is a database of another application; use another file`,
    )
  const version = pragma(database, 'user_version')
  if (version > MIGRATIONS.length)
    throw new MqttError(
      'STORE_VERSION',
      `the store ${file}: it has version ${version}, and this version of nestjs-mqtt reads up to ${MIGRATIONS.length}; update nestjs-mqtt, or use another file`,
    )
  return 'ours'
}

function pragma(database: SqlDatabase, name: string): number {
  const row: unknown = database.prepare(`PRAGMA ${name}`).get()
  const value: unknown = typeof row === 'object' && row !== null ? Reflect.get(row, name) : undefined
  return typeof value === 'number' ? value : 0
}
