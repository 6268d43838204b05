import { Controller } from '@nestjs/common'
import { Payload } from '@nestjs/microservices'
import { OnMqttEvent, TopicParam, type TopicPayload } from 'nestjs-mqtt'
import { telemetry } from '../topics.js'
import { FleetService } from './fleet.service.js'
import { TruckIdPipe } from './truck-id.pipe.js'

@Controller()
export class TelemetryController {
  constructor(private readonly fleet: FleetService) {}

  /** The schema of the contract has validated the reading. An invalid reading never arrives here. */
  @OnMqttEvent(telemetry)
  onTelemetry(
    @Payload() reading: TopicPayload<typeof telemetry>,
    @TopicParam(telemetry, 'truckId', TruckIdPipe) truckId: string,
  ): void {
    this.fleet.record(truckId, reading)
  }
}
