import { connect, type MqttClient } from 'mqtt'
import type { TopicInput } from 'nestjs-mqtt/client'
import { alarms, presences, states, telemetry } from '../topics.js'
import type { Cargo } from './cargo.js'
import { type Settled, Tally } from './tally.js'
import type { TruckOptions, Vehicle } from './truck.js'

/**
 * The same truck with plain `mqtt` and its default options, for comparison. It sends every reading: `mqtt` hands each one to
 * the socket, or keeps it until there is a connection.
 */
export class PlainTruck implements Vehicle {
  readonly truckId: string
  readonly readings = new Tally()
  readonly alarms = new Tally()
  private readonly client: MqttClient
  private readonly cargo: Cargo

  constructor({ truckId, url, cargo }: Omit<TruckOptions, 'policy' | 'storePath'>) {
    this.truckId = truckId
    this.cargo = cargo
    const { topic } = presences.at({ truckId })
    this.client = connect(url, {
      clientId: truckId,
      will: { topic, payload: Buffer.from('{"isOnline":false}'), qos: 1, retain: true },
    })
    this.client.on('connect', () => {
      // `mqtt` adds a listener to the socket for each message that waits. On a slow link there are more than Node expects.
      this.client.stream.setMaxListeners(0)
      this.client.publish(topic, '{"isOnline":true}', { qos: 1, retain: true })
      this.publishState()
    })
    // `mqtt` reconnects automatically. Without a listener, an error would end the process.
    this.client.on('error', () => {})
  }

  get isConnected(): boolean {
    return this.client.connected
  }

  publishReading(reading: TopicInput<typeof telemetry>): void {
    const { topic } = telemetry.at({ truckId: this.truckId })
    void this.readings.count(this.publish(topic, reading, 0))
  }

  publishAlarm(alarm: TopicInput<typeof alarms>): Promise<Settled> {
    return this.alarms.count(this.publish(alarms.at({ truckId: this.truckId }).topic, alarm, 1))
  }

  publishState(): void {
    const { isDoorOpen, setPointCelsius } = this.cargo
    const payload = JSON.stringify({ door: isDoorOpen ? 'open' : 'closed', setPointCelsius })
    this.client.publish(states.at({ truckId: this.truckId }).topic, payload, { qos: 1, retain: true })
  }

  async close(): Promise<void> {
    await this.client.endAsync(true)
  }

  private publish(topic: string, payload: object, qos: 0 | 1): Promise<Settled> {
    return new Promise(resolve => {
      this.client.publish(topic, JSON.stringify(payload), { qos }, error => {
        if (error) resolve({ status: 'lost' })
        else resolve({ status: qos === 0 ? 'sent' : 'acknowledged' })
      })
    })
  }
}
