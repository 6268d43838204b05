import { Controller } from '@nestjs/common'
import { EventPattern, Payload } from '@nestjs/microservices'
import { handle, TopicParam } from 'nestjs-mqtt'
import { AlarmService } from '../alarms/alarm.service.js'
import { FleetService } from '../fleet/fleet.service.js'
import type { Reading } from '../fleet/truck.js'
import { TruckIdPipe } from '../fleet/truck-id.pipe.js'
import { TELEMETRY_TOPIC } from '../topics.js'
import { ReadingPipe } from './reading.pipe.js'

@Controller()
export class TelemetryController {
  constructor(
    private readonly fleet: FleetService,
    private readonly alarms: AlarmService,
  ) {}

  /** Readings of one truck are handled one at a time, those of different trucks concurrently. */
  @EventPattern<string>(TELEMETRY_TOPIC, handle({ qos: 1 }))
  async onTelemetry(
    @TopicParam('truckId', TruckIdPipe) truckId: string,
    @Payload(ReadingPipe) reading: Reading,
  ): Promise<void> {
    const truck = this.fleet.record(truckId, reading)
    await this.alarms.report(truck)
  }
}
