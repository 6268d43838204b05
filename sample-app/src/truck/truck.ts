import { MqttClient, type TopicInput } from 'nestjs-mqtt/client'
import { sqliteStore } from 'nestjs-mqtt/store'
import { alarms, presences, setPoints, states, telemetry } from '../topics.js'
import type { Cargo } from './cargo.js'
import { type Settled, Tally } from './tally.js'

/** A truck with a client of this package, or with plain `mqtt` for comparison. */
export interface Vehicle {
  readonly truckId: string
  readonly readings: Tally
  readonly alarms: Tally
  readonly isConnected: boolean
  publishReading(reading: TopicInput<typeof telemetry>): void
  publishAlarm(alarm: TopicInput<typeof alarms>): Promise<Settled>
  /** Call it when the door or the set point has changed. */
  publishState(): void
  close(): Promise<void>
}

export interface TruckOptions {
  readonly truckId: string
  readonly url: string
  readonly cargo: Cargo
  /** What happens to a reading that the link cannot carry in time. */
  readonly policy: 'drop' | 'latest'
  /** File in which alarms wait for a connection. */
  readonly storePath: string
}

const CLOSE_WITHIN_MS = 1_000
const ONE_WEEK_MS = 7 * 24 * 3_600 * 1_000

/** A device with `nestjs-mqtt/client`, without Nest. */
export class Truck implements Vehicle {
  readonly truckId: string
  readonly readings = new Tally()
  readonly alarms = new Tally()
  private readonly client: MqttClient

  constructor(private readonly options: TruckOptions) {
    const { truckId, url, storePath } = options
    this.truckId = truckId
    this.client = new MqttClient({
      url,
      clientId: truckId,
      // A truck may start where there is no network.
      connect: 'background',
      reconnect: { delayMs: { min: 200, max: 2_000 } },
      presence: {
        topic: presences.at({ truckId }).topic,
        online: { isOnline: true },
        offline: { isOnline: false },
      },
      store: sqliteStore(storePath, { maxAgeMs: ONE_WEEK_MS }),
      drainTimeoutMs: CLOSE_WITHIN_MS,
    })
    this.client.respond(setPoints.at({ truckId }), ({ payload }) => this.setPoint(payload.celsius))
    // A broker that was restarted may have lost the retained message.
    this.client.onState(({ status }) => {
      if (status === 'connected') this.publishState()
    })
  }

  async start(): Promise<void> {
    await this.client.start()
  }

  get isConnected(): boolean {
    return this.client.state.status === 'connected'
  }

  publishReading(reading: TopicInput<typeof telemetry>): void {
    const { truckId, policy } = this.options
    void this.readings.count(this.client.publish(telemetry.at({ truckId }), reading, { whenBlocked: policy }))
  }

  publishAlarm(alarm: TopicInput<typeof alarms>): Promise<Settled> {
    return this.alarms.count(this.client.publish(alarms.at({ truckId: this.truckId }), alarm))
  }

  publishState(): void {
    const { truckId, cargo } = this.options
    const door = cargo.isDoorOpen ? 'open' : 'closed'
    void this.client.publish(states.at({ truckId }), { door, setPointCelsius: cargo.setPointCelsius })
  }

  async close(): Promise<void> {
    await this.client.close()
  }

  private setPoint(celsius: number): { setPointCelsius: number } {
    this.options.cargo.setPointCelsius = celsius
    this.publishState()
    return { setPointCelsius: celsius }
  }
}
