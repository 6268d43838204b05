import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Injectable, type OnApplicationShutdown } from '@nestjs/common'
import Database from 'libsql'
import { Subject } from 'rxjs'
import * as v from 'valibot'
import { Config } from '../config.js'
import { RecordedAlarm } from '../topics.js'

const ALARMS_KEPT = 10_000
const TABLE = `
  CREATE TABLE IF NOT EXISTS alarms (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    alarm_id TEXT NOT NULL UNIQUE,
    truck_id TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    celsius REAL NOT NULL,
    handled_by TEXT NOT NULL
  )`
const INSERT = `
  INSERT OR IGNORE INTO alarms (alarm_id, truck_id, at_ms, kind, celsius, handled_by)
  VALUES (:alarmId, :truckId, :atMs, :kind, :celsius, :handledBy)`
const LATEST = `
  SELECT alarm_id AS alarmId, truck_id AS truckId, at_ms AS atMs, kind, celsius, handled_by AS handledBy
  FROM alarms ORDER BY number DESC LIMIT ?`
const Rows = v.array(RecordedAlarm)
const Inserted = v.object({ changes: v.number(), lastInsertRowid: v.number() })

/**
 * The last alarms, in a file of SQLite. An alarm is on the disk before its handler ends, and so before the broker may forget
 * it. The file outlives this process, and each instance of the service has its own.
 */
@Injectable()
export class AlarmHistory implements OnApplicationShutdown {
  readonly added = new Subject<RecordedAlarm>()
  /** Alarms that arrived again. QoS 1 delivers at least once. */
  repeats = 0
  /** Since the service started. */
  total = 0
  deadLettered = 0
  private readonly database: ReturnType<typeof open>

  constructor({ dataFolder, instance }: Config) {
    this.database = open(dataFolder, instance)
  }

  /** Returns whether the alarm is new. */
  record(alarm: RecordedAlarm): boolean {
    const { changes, lastInsertRowid } = v.parse(Inserted, this.database.prepare(INSERT).run(alarm))
    if (changes === 0) return false
    this.database.prepare('DELETE FROM alarms WHERE number <= ?').run(lastInsertRowid - ALARMS_KEPT)
    this.total += 1
    this.added.next(alarm)
    return true
  }

  has(alarmId: string): boolean {
    return this.database.prepare('SELECT 1 FROM alarms WHERE alarm_id = ?').get(alarmId) !== undefined
  }

  /** The newest first. */
  latest(count: number): RecordedAlarm[] {
    return v.parse(Rows, this.database.prepare(LATEST).all(count))
  }

  onApplicationShutdown(): void {
    this.database.close()
  }
}

function open(folder: string, name: string) {
  mkdirSync(folder, { recursive: true })
  const database = new Database(join(folder, `${name}.db`))
  // With FULL, a commit is on the disk, and survives a power failure.
  database.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; ${TABLE}`)
  return database
}
