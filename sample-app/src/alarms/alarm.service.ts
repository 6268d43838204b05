import { Injectable, Logger, type OnModuleInit } from '@nestjs/common'
import { fillTopic, MqttService, type PublishOutcome } from 'nestjs-mqtt'
import type { Alarm, Truck } from '../fleet/truck.js'
import { ALARM_TOPIC } from '../topics.js'

/** Publishes the alarms of the trucks. */
@Injectable()
export class AlarmService implements OnModuleInit {
  private readonly logger = new Logger(AlarmService.name)
  /** The last alarm of each truck that the broker has acknowledged. */
  private delivered = new WeakMap<Truck, Alarm>()

  constructor(private readonly mqtt: MqttService) {}

  /** A broker that lost the session may have lost retained messages too, so all alarms are published again. */
  onModuleInit(): void {
    this.mqtt.status$.subscribe(state => {
      if (state.status === 'connected' && !state.session.sessionPresent) this.delivered = new WeakMap()
    })
  }

  /**
   * Publishes the alarm of a truck if the broker does not have it yet. Call it at each reading, so that an undelivered
   * alarm is published again.
   */
  async report(truck: Truck): Promise<void> {
    const { id, alarm } = truck
    if (alarm === undefined || this.delivered.get(truck) === alarm) return
    const topic = fillTopic(ALARM_TOPIC, { truckId: id })
    const outcome = await this.mqtt.publish(topic, alarm, { qos: 1, retain: true })
    if (outcome.status !== 'acknowledged') {
      this.logger.warn(
        `Alarm of ${id} not delivered (${reasonOf(outcome)}); trying again at the next reading`,
      )
      return
    }
    this.log(id, alarm, this.delivered.get(truck))
    this.delivered.set(truck, alarm)
  }

  private log(truckId: string, { active, temperatureCelsius, limitCelsius }: Alarm, before?: Alarm): void {
    const measured = `${temperatureCelsius} °C with a limit of ${limitCelsius} °C`
    if (active) this.logger.warn(`Alarm raised for ${truckId}: ${measured}`)
    else if (before?.active) this.logger.log(`Alarm cleared for ${truckId}: ${measured}`)
  }
}

function reasonOf(outcome: PublishOutcome): string {
  switch (outcome.status) {
    case 'dropped':
      return outcome.reason
    case 'lost':
      return outcome.cause.message
    case 'refused':
      return outcome.reasonString ?? `Reason Code ${outcome.reasonCode}`
    default:
      return outcome.status
  }
}
