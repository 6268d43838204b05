import { Module } from '@nestjs/common'
import { MqttModule, type MqttModuleOptions } from 'nestjs-mqtt'
import { Broker, BrokerModule } from './broker/broker.js'
import { Config, ConfigModule } from './config.js'
import { DemoModule } from './demo/demo.module.js'
import { ServiceModule } from './service/service.module.js'

const ONE_HOUR_SECONDS = 3_600
const SIXTEEN_MEBIBYTES = 16 * 1_024 * 1_024

@Module({
  imports: [
    MqttModule.forRootAsync({
      imports: [ConfigModule, BrokerModule],
      inject: [Config, Broker],
      useFactory: (config: Config, broker: Broker): MqttModuleOptions => ({
        url: broker.url,
        connect: 'fail-fast',
        clientId: config.instance,
        // The broker keeps alarms that arrive while this service restarts.
        clean: false,
        properties: { sessionExpiryInterval: ONE_HOUR_SECONDS },
        reconnect: { delayMs: { min: 100, max: 2_000 } },
        drainTimeoutMs: 2_000,
        // A dead letter is as large as the unreadable message.
        outbound: { maxQueuedBytes: SIXTEEN_MEBIBYTES },
      }),
    }),
    ServiceModule,
    DemoModule,
  ],
})
export class AppModule {}
