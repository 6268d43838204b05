import { Module } from '@nestjs/common'
import { TerminusModule } from '@nestjs/terminus'
import { MqttHealthIndicator } from 'nestjs-mqtt/health'
import { ConfigModule } from '../config.js'
import { AlarmHistory } from './alarm-history.js'
import { AlarmsController } from './alarms.controller.js'
import { FleetController } from './fleet.controller.js'
import { FleetService } from './fleet.service.js'
import { HealthController } from './health.controller.js'
import { MetricsController } from './metrics.controller.js'
import { TelemetryController } from './telemetry.controller.js'

/** The operations service. It does not depend on the demo. */
@Module({
  imports: [ConfigModule, TerminusModule],
  controllers: [TelemetryController, AlarmsController, FleetController, HealthController, MetricsController],
  providers: [FleetService, AlarmHistory, MqttHealthIndicator],
  exports: [FleetService, AlarmHistory],
})
export class ServiceModule {}
