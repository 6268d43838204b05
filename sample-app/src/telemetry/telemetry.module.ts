import { Module } from '@nestjs/common'
import { AlarmModule } from '../alarms/alarm.module.js'
import { FleetModule } from '../fleet/fleet.module.js'
import { TelemetryController } from './telemetry.controller.js'

@Module({ imports: [FleetModule, AlarmModule], controllers: [TelemetryController] })
export class TelemetryModule {}
