import { Module } from '@nestjs/common'
import { Config } from './config.js'

@Module({
  providers: [{ provide: Config, useFactory: () => new Config(process.env) }],
  exports: [Config],
})
export class ConfigModule {}
