import { Injectable } from '@nestjs/common'
import { MqttService, type Retained, type TopicPayload } from 'nestjs-mqtt'
import { Subject } from 'rxjs'
import { presences, states, telemetry } from '../topics.js'

type Reading = TopicPayload<typeof telemetry>

export interface TruckView {
  readonly truckId: string
  readonly isOnline: boolean
  readonly door: 'open' | 'closed' | 'unknown'
  readonly setPointCelsius: number | undefined
  readonly celsius: number | undefined
  readonly latitude: number | undefined
  readonly longitude: number | undefined
  /** How old the newest reading is now, in milliseconds. */
  readonly ageMs: number | undefined
}

export interface Arrival {
  readonly truckId: string
  /** How old the reading was when it arrived, in milliseconds. */
  readonly ageMs: number
}

/** Anyone may publish with any truck id, so the number of trucks has a limit. */
const TRUCKS_KEPT = 1_000

/** What is known about the trucks: readings in memory, and the state and presence that the broker retains. */
@Injectable()
export class FleetService {
  readonly arrivals = new Subject<Arrival>()
  /** The newest reading of each truck, in the order of arrival. */
  private readonly readings = new Map<string, Reading>()
  private readonly states: Retained<TopicPayload<typeof states>>
  private readonly presences: Retained<TopicPayload<typeof presences>>

  constructor(mqtt: MqttService) {
    this.states = mqtt.retained(states, { maxTopics: TRUCKS_KEPT })
    this.presences = mqtt.retained(presences, { maxTopics: TRUCKS_KEPT })
  }

  record(truckId: string, reading: Reading): void {
    this.readings.delete(truckId)
    this.readings.set(truckId, reading)
    const [longestSilent] = this.readings.keys()
    if (this.readings.size > TRUCKS_KEPT && longestSilent !== undefined) this.readings.delete(longestSilent)
    this.arrivals.next({ truckId, ageMs: Date.now() - reading.atMs })
  }

  get trucks(): TruckView[] {
    const ids = new Set(this.readings.keys())
    for (const [topic] of this.presences.entries()) {
      const params = presences.match(topic)
      if (params !== undefined) ids.add(params.truckId)
    }
    return [...ids]
      .sort((one, other) => one.localeCompare(other, 'en', { numeric: true }))
      .map(truckId => this.viewOf(truckId))
  }

  find(truckId: string): TruckView | undefined {
    const isKnown = this.readings.has(truckId) || this.presences.has(presences.at({ truckId }).topic)
    return isKnown ? this.viewOf(truckId) : undefined
  }

  private viewOf(truckId: string): TruckView {
    const reading = this.readings.get(truckId)
    const state = this.states.get(states.at({ truckId }).topic)
    return {
      truckId,
      isOnline: this.presences.get(presences.at({ truckId }).topic)?.isOnline ?? false,
      door: state?.door ?? 'unknown',
      setPointCelsius: state?.setPointCelsius,
      celsius: reading?.celsius,
      latitude: reading?.latitude,
      longitude: reading?.longitude,
      ageMs: reading === undefined ? undefined : Math.max(0, Date.now() - reading.atMs),
    }
  }
}
