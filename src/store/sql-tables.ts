import type { SqlDatabase, SqlStatement, SqlValue } from './sqlite-engine.js'
import { type Row, rowOf } from './store-records.js'

/** The statements of one connection to a file. */
export class SqlTables {
  private readonly statements = new Map<string, SqlStatement>()

  constructor(readonly database: SqlDatabase) {}

  begin(): void {
    this.run('BEGIN IMMEDIATE')
  }

  commit(): void {
    this.run('COMMIT')
  }

  /** May also be called right after SQLite itself has rolled back. */
  rollback(): void {
    try {
      this.run('ROLLBACK')
    } catch {
      // SQLite had already ended the transaction.
    }
  }

  /** Moves the log into the file, which makes room on a full disk. */
  checkpoint(): void {
    this.database.prepare('PRAGMA wal_checkpoint(TRUNCATE)').get()
  }

  /** Deletes the log, and uses none from here on. */
  leaveLog(): void {
    this.database.exec('PRAGMA journal_mode = DELETE')
  }

  close(): void {
    this.statements.clear()
    this.database.close()
  }

  rows(sql: string, values: SqlValue[]): Row[] {
    return this.statement(sql)
      .all(...values)
      .map(rowOf)
      .filter(row => row !== undefined)
  }

  run(sql: string, values: SqlValue[] = []): void {
    this.statement(sql).run(...values)
  }

  private statement(sql: string): SqlStatement {
    const known = this.statements.get(sql)
    if (known !== undefined) return known
    const prepared = this.database.prepare(sql)
    this.statements.set(sql, prepared)
    return prepared
  }
}
