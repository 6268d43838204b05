import { Injectable } from '@nestjs/common'
import type { TopicPayload } from 'nestjs-mqtt'
import { Subject } from 'rxjs'
import type { alarmLog } from '../topics.js'

export type RecordedAlarm = TopicPayload<typeof alarmLog>

const ALARMS_KEPT = 10_000

/** The last alarms, in memory. */
@Injectable()
export class AlarmHistory {
  readonly added = new Subject<RecordedAlarm>()
  private readonly byId = new Map<string, RecordedAlarm>()
  /** Alarms that arrived again. QoS 1 delivers at least once. */
  repeats = 0
  total = 0
  deadLettered = 0

  /** Returns whether the alarm is new. */
  record(alarm: RecordedAlarm): boolean {
    if (this.byId.has(alarm.alarmId)) return false
    this.byId.set(alarm.alarmId, alarm)
    const [oldest] = this.byId.keys()
    if (this.byId.size > ALARMS_KEPT && oldest !== undefined) this.byId.delete(oldest)
    this.total += 1
    this.added.next(alarm)
    return true
  }

  has(alarmId: string): boolean {
    return this.byId.has(alarmId)
  }

  /** The newest first. */
  latest(count: number): RecordedAlarm[] {
    return [...this.byId.values()].slice(-count).reverse()
  }
}
