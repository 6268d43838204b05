import { Controller, Logger } from '@nestjs/common'
import { Payload, RpcException } from '@nestjs/microservices'
import { deadLetter, MqttService, OnMqttEvent, TopicParam, type TopicPayload } from 'nestjs-mqtt'
import { Config, SHARED_GROUP } from '../config.js'
import { alarmLog, alarms, DEAD_ALARMS } from '../topics.js'
import { AlarmHistory } from './alarm-history.js'
import { TruckIdPipe } from './truck-id.pipe.js'

@Controller()
export class AlarmsController {
  private readonly logger = new Logger(AlarmsController.name)

  constructor(
    private readonly mqtt: MqttService,
    private readonly history: AlarmHistory,
    private readonly config: Config,
  ) {}

  /**
   * The broker keeps an alarm until this handler has finished. If it fails, it runs again, and in the end the alarm becomes
   * a dead letter. So every alarm is either recorded or kept as a dead letter.
   *
   * Alarms have a time and an id, so they need no order: one that fails does not hold back the next.
   */
  @OnMqttEvent(alarms, {
    order: 'none',
    retries: { attempts: 3, delayMs: [200, 1_000] },
    onFailure: deadLetter(DEAD_ALARMS),
    ...(SHARED_GROUP === undefined ? {} : { sharedGroup: SHARED_GROUP }),
  })
  async onAlarm(
    @Payload() alarm: TopicPayload<typeof alarms>,
    @TopicParam(alarms, 'truckId', TruckIdPipe) truckId: string,
  ): Promise<void> {
    const recorded = { ...alarm, truckId, handledBy: this.config.instance }
    if (!this.history.record(recorded)) this.history.repeats += 1
    // The other instances receive it from the log.
    const outcome = await this.mqtt.publish(alarmLog.at(), recorded)
    if (outcome.status !== 'acknowledged') throw new RpcException(`the alarm log: ${outcome.status}`)
  }

  @OnMqttEvent(alarmLog)
  onRecorded(@Payload() alarm: TopicPayload<typeof alarmLog>): void {
    this.history.record(alarm)
  }

  @OnMqttEvent(DEAD_ALARMS, { codec: 'bytes' })
  onDeadAlarm(@Payload() letter: Buffer): void {
    this.history.deadLettered += 1
    // Anyone can publish a thousand of them in a second, so the log has the first one of each thousand.
    if (this.history.deadLettered % 1_000 === 1)
      this.logger.warn(`dead letter ${this.history.deadLettered} has ${letter.length} bytes`)
  }
}
