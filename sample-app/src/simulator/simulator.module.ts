import { Module } from '@nestjs/common'
import { BrokerModule } from '../broker/broker.module.js'
import { ConfigModule } from '../config/config.module.js'
import { SimulatedFleet } from './simulated-fleet.js'

@Module({ imports: [ConfigModule, BrokerModule], providers: [SimulatedFleet] })
export class SimulatorModule {}
