import { Logger } from '@nestjs/common'
import { connect, type MqttClient } from 'mqtt'
import { fillTopic } from 'nestjs-mqtt'
import { ALARM_TOPIC, TELEMETRY_TOPIC } from '../topics.js'
import { Cargo } from './cargo.js'

export interface SimulatedTruckOptions {
  readonly truckId: string
  readonly setPointCelsius: number
  /** Time between two readings. */
  readonly intervalMs: number
  /** Time until the driver leaves the door open for the first time. */
  readonly firstDoorOpenMs: number
}

const DOOR_OPEN_EVERY_MS = 90_000
const DOOR_OPEN_AT_MOST_MS = 20_000
const RECONNECT_MS = 1_000

/** Simulates a device: a plain `mqtt` client with its own connection, without Nest. */
export class SimulatedTruck {
  private readonly logger: Logger
  private readonly cargo: Cargo
  private readonly client: MqttClient
  private readonly timer: NodeJS.Timeout
  private readonly telemetryTopic: string
  private nextDoorOpenMs: number
  private doorOpenSinceMs = 0

  constructor(brokerUrl: string, options: SimulatedTruckOptions) {
    const { truckId, setPointCelsius, intervalMs, firstDoorOpenMs } = options
    this.logger = new Logger(truckId)
    this.cargo = new Cargo(setPointCelsius)
    this.nextDoorOpenMs = Date.now() + firstDoorOpenMs
    this.telemetryTopic = fillTopic(TELEMETRY_TOPIC, { truckId })
    this.client = connect(brokerUrl, { clientId: `simulated-${truckId}`, reconnectPeriod: RECONNECT_MS })
    this.listen(fillTopic(ALARM_TOPIC, { truckId }))
    this.timer = setInterval(() => this.drive(), intervalMs)
  }

  /** Disconnects at once, without waiting for the broker. */
  async stop(): Promise<void> {
    clearInterval(this.timer)
    await this.client.endAsync(true)
  }

  private listen(alarmTopic: string): void {
    this.client.on('connect', () => this.client.subscribe(alarmTopic, { qos: 1 }))
    this.client.on('message', (_topic, payload) => this.onAlarm(payload.toString()))
    this.client.on('offline', () => this.logger.warn(`No connection; reconnecting every ${RECONNECT_MS} ms`))
    // The `offline` listener logs failed attempts. Without a listener here, an error event would end the process.
    this.client.on('error', () => {})
  }

  private drive(): void {
    this.useDoor()
    this.cargo.step()
    // Without a connection `mqtt` would queue readings without a limit.
    if (!this.client.connected) return
    const reading = { temperatureCelsius: this.cargo.temperatureCelsius, at: new Date().toISOString() }
    this.client.publish(this.telemetryTopic, JSON.stringify(reading), { qos: 1 }, error => {
      if (error) this.logger.debug(error.message)
    })
  }

  private useDoor(): void {
    const now = Date.now()
    if (now >= this.nextDoorOpenMs) {
      this.doorOpenSinceMs = now
      this.nextDoorOpenMs = now + DOOR_OPEN_EVERY_MS
      this.cargo.isDoorOpen = true
      this.logger.log('The driver left the door open')
    } else if (this.cargo.isDoorOpen && now >= this.doorOpenSinceMs + DOOR_OPEN_AT_MOST_MS) {
      this.closeDoor('The driver comes back and closes the door')
    }
  }

  private onAlarm(payload: string): void {
    if (isActive(payload) && this.cargo.isDoorOpen) this.closeDoor('Alarm! The driver closes the door')
  }

  private closeDoor(text: string): void {
    this.cargo.isDoorOpen = false
    this.logger.log(text)
  }
}

/** Anyone can publish to the alarm topic, so the payload may not be valid JSON. */
function isActive(payload: string): boolean {
  try {
    const alarm: unknown = JSON.parse(payload)
    return typeof alarm === 'object' && alarm !== null && 'active' in alarm && alarm.active === true
  } catch {
    return false
  }
}
