import { Module } from '@nestjs/common'
import { MqttModule, type MqttModuleOptions } from 'nestjs-mqtt'
import { Broker } from './broker/broker.js'
import { BrokerModule } from './broker/broker.module.js'
import { CommandsModule } from './commands/commands.module.js'
import { Config } from './config/config.js'
import { ConfigModule } from './config/config.module.js'
import { FleetModule } from './fleet/fleet.module.js'
import { HealthModule } from './health/health.module.js'
import { SimulatorModule } from './simulator/simulator.module.js'
import { TelemetryModule } from './telemetry/telemetry.module.js'

const ONE_HOUR_SECONDS = 3_600

@Module({
  imports: [
    MqttModule.forRootAsync({
      imports: [ConfigModule, BrokerModule],
      inject: [Config, Broker],
      useFactory: (config: Config, broker: Broker): MqttModuleOptions => ({
        url: broker.url,
        connect: 'fail-fast',
        clientId: config.mqttClientId,
        // The broker stores readings that arrive while this application restarts.
        clean: false,
        properties: { sessionExpiryInterval: ONE_HOUR_SECONDS },
      }),
    }),
    ConfigModule,
    BrokerModule,
    FleetModule,
    TelemetryModule,
    CommandsModule,
    HealthModule,
    SimulatorModule,
  ],
})
export class AppModule {}
