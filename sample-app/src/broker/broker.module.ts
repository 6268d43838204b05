import { Module } from '@nestjs/common'
import { Config } from '../config/config.js'
import { ConfigModule } from '../config/config.module.js'
import { Broker } from './broker.js'

@Module({
  imports: [ConfigModule],
  providers: [{ provide: Broker, inject: [Config], useFactory: (config: Config) => Broker.start(config) }],
  exports: [Broker],
})
export class BrokerModule {}
