import { isError, MqttError } from '../core/errors.js'

export type SqlValue = null | number | string | Uint8Array

export interface SqlStatement {
  run(...values: SqlValue[]): unknown
  get(...values: SqlValue[]): unknown
  all(...values: SqlValue[]): unknown[]
}

/** What both engines have in common. */
export interface SqlDatabase {
  exec(sql: string): unknown
  prepare(sql: string): SqlStatement
  close(): unknown
}

/** The packages that can read and write an SQLite file. */
export type SqliteEngineName = 'node:sqlite' | 'libsql'

export interface SqliteEngine {
  readonly name: SqliteEngineName
  open(file: string, options?: { readonly readOnly?: boolean }): SqlDatabase
}

type Constructor = new (file: string, options: Readonly<Record<string, boolean>>) => SqlDatabase

/**
 * Loads an engine: by default `node:sqlite`, or `libsql` where Node does not have it.
 * @throws MqttError `STORE_FAILED` if the engine is not available
 */
export async function loadEngine(wanted?: SqliteEngineName): Promise<SqliteEngine> {
  const builtIn = wanted === 'libsql' ? undefined : builtInEngine()
  if (builtIn !== undefined) return builtIn
  if (wanted === 'node:sqlite')
    throw new MqttError(
      'STORE_FAILED',
      `Node ${process.version} has no node:sqlite; use Node 22.13 or later, or install libsql`,
    )
  return libsqlEngine()
}

function builtInEngine(): SqliteEngine | undefined {
  const loaded = process.getBuiltinModule('node:sqlite')
  if (loaded === undefined || !('DatabaseSync' in loaded)) return undefined
  // Seam: the types of Node 20 do not have this module.
  const { DatabaseSync } = loaded as { readonly DatabaseSync: Constructor }
  return {
    name: 'node:sqlite',
    open: (file, { readOnly = false } = {}) => new DatabaseSync(file, { readOnly }),
  }
}

async function libsqlEngine(): Promise<SqliteEngine> {
  const loaded: object = await import('libsql').catch((cause: unknown) => {
    throw new MqttError(
      'STORE_FAILED',
      `Node ${process.version} has no node:sqlite, and the package libsql could not be loaded. Install it (npm install libsql), or use Node 22.13 or later`,
      { cause },
    )
  })
  const exported: unknown = 'default' in loaded ? loaded.default : loaded
  // Seam: libsql declares the types of another package, which name more than libsql has.
  const Database = exported as Constructor
  return {
    name: 'libsql',
    open: (file, { readOnly = false } = {}) => {
      const database = new Database(file, {})
      // The option `readonly` of libsql has no effect.
      if (readOnly) database.exec('PRAGMA query_only = ON')
      return database
    },
  }
}

/** The primary result codes of SQLite that the store handles. */
export const SQLITE = {
  PERM: 3,
  BUSY: 5,
  LOCKED: 6,
  READONLY: 8,
  IOERR: 10,
  CORRUPT: 11,
  FULL: 13,
  CANTOPEN: 14,
  NOTADB: 26,
} as const

/** Returns the primary result code of an error of either engine. */
export function resultCodeOf(error: unknown): number | undefined {
  if (!isError(error)) return undefined
  for (const name of ['errcode', 'rawCode']) {
    const code: unknown = Reflect.get(error, name)
    if (typeof code === 'number') return code & 0xff
  }
  // When an open fails, libsql has the code only in its message.
  const [, code] = /ConnectionFailed\(.*: (\d+)"\)$/s.exec(error.message) ?? []
  return code === undefined ? undefined : Number(code) & 0xff
}
