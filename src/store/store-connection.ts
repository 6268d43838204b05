import { copyFileSync, existsSync, realpathSync, renameSync, rmSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import type { SqlDatabase, SqliteEngine } from './sqlite-engine.js'
import { Contradiction, isDamage, needsNewConnection, storeError } from './store-errors.js'
import { commitsAfterDamage } from './write-ahead-log.js'

export interface StorePlaceOptions {
  readonly file: string
  /** What to do with a file that cannot be read at all. */
  readonly onCorrupt: 'fail' | 'move-aside'
  /** Pages that the file may have, so that a test can fill the disk. */
  readonly maxPages?: number | undefined
}

/** What a file contains, and how a damaged one is repaired. */
export interface StoreFormat<T, S> {
  /** `store` or `inbox`. */
  readonly name: string
  /** Creates, migrates and checks the tables. @param title for errors */
  connect(database: SqlDatabase, title: string): T
  /** Returns what the file contains. Counts it if the file does not say it. */
  state(tables: T): S
  /** Copies every record that can be read into an empty file. @param known what the file contained, if that is known */
  rescue(from: T, to: T, known: S | undefined): Rescue<S>
}

/** The result of a repair. */
export interface Rescue<S> {
  readonly state: S
  /** Records that could not be read. */
  readonly lost: number
  /** What was kept, for the log. */
  readonly kept: string
}

const PARTS = ['', '-wal', '-shm'] as const

/** The connection to a file, which is opened again after an error of the disk, and the lock on it. */
export class StoreConnection<T extends { close(): unknown; leaveLog(): void }, S> {
  /** For errors. */
  readonly title: string
  private readonly file: string
  private tables: T | undefined
  private inode: bigint | undefined
  private lock: SqlDatabase | undefined
  private repairs: string[] = []
  private lost = 0

  constructor(
    private readonly engine: SqliteEngine,
    private readonly options: StorePlaceOptions,
    private readonly format: StoreFormat<T, S>,
  ) {
    this.file = realPathOf(options.file)
    this.title = `the ${format.name} ${this.file}`
  }

  /** @throws MqttError `STORE_LOCKED`, `STORE_VERSION`, `STORE_CORRUPT`, `STORE_FAILED` */
  open(): S {
    try {
      this.lock = this.acquire()
      this.finishRepair()
      this.checkLog()
      return this.openUnlessCorrupt()
    } catch (error) {
      this.close()
      throw storeError(this.title, error)
    }
  }

  run<R>(work: (tables: T) => R): R {
    try {
      this.tables ??= this.connect(this.file)
      this.assertInPlace()
      return work(this.tables)
    } catch (error) {
      if (needsNewConnection(error)) this.disconnect()
      throw error
    }
  }

  /** Copies what can be read into a new file, and keeps the damaged one under another name. */
  repair(known: S | undefined): S {
    const rescued = `${this.file}-rescue`
    removeDatabase(rescued)
    this.tables ??= this.connect(this.file)
    const to = this.connect(rescued)
    let rescue: Rescue<S>
    try {
      rescue = this.format.rescue(this.tables, to, known)
    } finally {
      to.close()
      this.leaveLog()
      this.disconnect()
    }
    const aside = existsSync(this.file)
      ? `The damaged file is ${this.moveAside('damaged')}`
      : 'Its file had been removed'
    moveDatabase(rescued, this.file)
    this.lost = rescue.lost
    this.repairs.push(`${this.title} was damaged and has been repaired: ${rescue.kept}. ${aside}`)
    return rescue.state
  }

  /** Records that the last repair could not read. */
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

  /** SQLite ignores what follows a damaged part of the log, and deletes it. */
  private checkLog(): void {
    const log = `${this.file}-wal`
    const commits = commitsAfterDamage(log)
    if (commits === 0) return
    const aside = `${log}.damaged-${timeInName()}`
    copyFileSync(log, aside)
    this.repairs.push(
      `the log of ${this.title} is damaged, so ${commits === 1 ? 'one commit' : `${commits} commits`} of the last process were lost: the ${this.format.name} continues with those before. The damaged log is ${aside}`,
    )
  }

  private openUnlessCorrupt(): S {
    try {
      return this.openTables()
    } catch (error) {
      if (!isDamage(error) || this.options.onCorrupt === 'fail') throw error
      this.disconnect()
      const aside = this.moveAside('corrupt')
      this.repairs.push(
        `${this.title} could not be read and has been moved to ${aside}; the ${this.format.name} starts empty`,
      )
      return this.openTables()
    }
  }

  private openTables(): S {
    this.tables = this.connect(this.file)
    try {
      return this.format.state(this.tables)
    } catch (error) {
      if (!isDamage(error)) throw error
      return this.repair(undefined)
    }
  }

  /** If the file was removed, everything that is written from now on would be lost when the process ends. */
  private assertInPlace(): void {
    if (inodeOf(this.file) !== this.inode) throw new Contradiction('its file was removed or replaced')
  }

  private connect(file: string): T {
    const database = this.engine.open(file)
    try {
      const tables = this.format.connect(database, this.title)
      if (file === this.file) this.inode = inodeOf(file)
      const { maxPages } = this.options
      if (maxPages !== undefined) database.exec(`PRAGMA max_page_count = ${maxPages}`)
      return tables
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

  /**
   * libsql closes a connection only when its statements are garbage. If its file has no pages, SQLite then deletes the log by its
   * name, which is that of the new file.
   */
  private leaveLog(): void {
    if (statSync(this.file, { throwIfNoEntry: false })?.size !== 0) return
    try {
      this.tables?.leaveLog()
    } catch {
      // The log has content, so the file has pages for SQLite.
    }
  }

  private moveAside(why: 'damaged' | 'corrupt'): string {
    const aside = `${this.file}.${why}-${timeInName()}`
    moveDatabase(this.file, aside)
    return aside
  }
}

const timeInName = (): string => new Date().toISOString().replace(/[:.]/g, '-')

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

function inodeOf(file: string): bigint | undefined {
  return statSync(file, { bigint: true, throwIfNoEntry: false })?.ino
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
