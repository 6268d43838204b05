import { existsSync, realpathSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import type { SqlDatabase, SqliteEngine } from './sqlite-engine.js'
import { isDamage, needsNewConnection, storeError } from './store-errors.js'
import { copyReadable } from './store-rescue.js'
import { prepareDatabase } from './store-schema.js'
import { type StoreState, StoreTables } from './store-tables.js'

export interface StorePlaceOptions {
  readonly file: string
  /** What to do with a file that cannot be read at all. */
  readonly onCorrupt: 'fail' | 'move-aside'
  /** Pages that the file may have, so that a test can fill the disk. */
  readonly maxPages?: number | undefined
}

const PARTS = ['', '-wal', '-shm'] as const

/** The connection to a file, which is opened again after an error of the disk, and the lock on it. */
export class StoreConnection {
  readonly file: string
  private tables: StoreTables | undefined
  private lock: SqlDatabase | undefined
  private repairs: string[] = []
  private lost = 0

  constructor(
    private readonly engine: SqliteEngine,
    private readonly options: StorePlaceOptions,
  ) {
    this.file = realPathOf(options.file)
  }

  /** @throws MqttError `STORE_LOCKED`, `STORE_VERSION`, `STORE_CORRUPT`, `STORE_FAILED` */
  open(): StoreState {
    try {
      this.lock = this.acquire()
      this.finishRepair()
      return this.openUnlessCorrupt()
    } catch (error) {
      this.close()
      throw storeError(this.file, error)
    }
  }

  run<T>(work: (tables: StoreTables) => T): T {
    try {
      this.tables ??= this.connect(this.file)
      return work(this.tables)
    } catch (error) {
      if (needsNewConnection(error)) this.disconnect()
      throw error
    }
  }

  /** Copies what can be read into a new file, and keeps the damaged one under another name. */
  repair(known: StoreState | undefined): StoreState {
    const rescued = `${this.file}-rescue`
    removeDatabase(rescued)
    this.tables ??= this.connect(this.file)
    const to = this.connect(rescued)
    let state: StoreState
    try {
      const copied = copyReadable(this.tables, to, known)
      this.lost = copied.lost
      state = copied.state
    } finally {
      to.close()
      this.disconnect()
    }
    const aside = this.moveAside('damaged')
    moveDatabase(rescued, this.file)
    this.repairs.push(
      `the store ${this.file} was damaged and has been repaired: ${state.messages} messages were kept, ${this.lost} could not be read. The damaged file is ${aside}`,
    )
    return state
  }

  /** Messages that the last repair could not read. */
  takeLost(): number {
    const { lost } = this
    this.lost = 0
    return lost
  }

  takeRepairs(): string[] {
    const { repairs } = this
    this.repairs = []
    return repairs
  }

  close(): void {
    this.disconnect()
    closeQuietly(this.lock)
    this.lock = undefined
  }

  /** Takes a lock of the operating system, which ends with the process. Readers do not need it. */
  private acquire(): SqlDatabase {
    const lock = this.engine.open(`${this.file}-lock`)
    try {
      lock.exec('PRAGMA busy_timeout = 0')
      lock.exec('PRAGMA journal_mode = MEMORY')
      lock.exec('BEGIN EXCLUSIVE')
      return lock
    } catch (error) {
      closeQuietly(lock)
      throw error
    }
  }

  private openUnlessCorrupt(): StoreState {
    try {
      return this.openTables()
    } catch (error) {
      if (!isDamage(error) || this.options.onCorrupt === 'fail') throw error
      this.disconnect()
      const aside = this.moveAside('corrupt')
      this.repairs.push(
        `the store ${this.file} could not be read and has been moved to ${aside}; the store starts empty`,
      )
      return this.openTables()
    }
  }

  private openTables(): StoreState {
    this.tables = this.connect(this.file)
    const { tables } = this
    try {
      const saved = tables.state()
      if (saved !== undefined) return saved
      const counted = tables.countedState()
      tables.saveState(counted)
      return counted
    } catch (error) {
      if (!isDamage(error)) throw error
      return this.repair(undefined)
    }
  }

  private connect(file: string): StoreTables {
    const database = this.engine.open(file)
    try {
      prepareDatabase(database, this.file)
      const { maxPages } = this.options
      if (maxPages !== undefined) database.exec(`PRAGMA max_page_count = ${maxPages}`)
      return new StoreTables(database)
    } catch (error) {
      closeQuietly(database)
      throw error
    }
  }

  private disconnect(): void {
    const { tables } = this
    this.tables = undefined
    closeQuietly(tables)
  }

  /** Completes a repair that was interrupted between its last two steps, and discards any other. */
  private finishRepair(): void {
    const rescued = `${this.file}-rescue`
    if (!existsSync(rescued)) return
    if (existsSync(this.file)) removeDatabase(rescued)
    else moveDatabase(rescued, this.file)
  }

  private moveAside(why: 'damaged' | 'corrupt'): string {
    const time = new Date().toISOString().replace(/[:.]/g, '-')
    const aside = `${this.file}.${why}-${time}`
    moveDatabase(this.file, aside)
    return aside
  }
}

/** Moves the log first: without it, a file is complete but old. */
function moveDatabase(from: string, to: string): void {
  for (const part of PARTS.toReversed()) if (existsSync(from + part)) renameSync(from + part, to + part)
}

function removeDatabase(file: string): void {
  for (const part of PARTS) rmSync(file + part, { force: true })
}

function closeQuietly(database: { close(): unknown } | undefined): void {
  try {
    database?.close()
  } catch {
    // It can no longer be used in any case.
  }
}

/** Two paths to the same file must share one lock. */
function realPathOf(given: string): string {
  const file = resolve(given)
  try {
    return realpathSync(file)
  } catch {
    return join(realFolderOf(dirname(file)), basename(file))
  }
}

function realFolderOf(folder: string): string {
  try {
    return realpathSync(folder)
  } catch {
    return folder
  }
}
