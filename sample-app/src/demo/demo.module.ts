import { Module } from '@nestjs/common'
import { BrokerModule } from '../broker/broker.js'
import { ConfigModule } from '../config.js'
import { Instances } from '../instances.js'
import { ServiceModule } from '../service/service.module.js'
import { BadDay } from './bad-day.js'
import { BadDayReport } from './bad-day-report.js'
import { DemoController } from './demo.controller.js'
import { DemoFleet } from './fleet.js'
import { Meter } from './meter.js'
import { Stage } from './stage.js'

/** The trucks, their links, and what can go wrong. An application of your own has none of this. */
@Module({
  imports: [ConfigModule, BrokerModule, ServiceModule],
  controllers: [DemoController],
  providers: [DemoFleet, Meter, Stage, BadDay, BadDayReport, Instances],
})
export class DemoModule {}
