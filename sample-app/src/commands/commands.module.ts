import { Module } from '@nestjs/common'
import { FleetModule } from '../fleet/fleet.module.js'
import { CommandsController } from './commands.controller.js'

@Module({ imports: [FleetModule], controllers: [CommandsController] })
export class CommandsModule {}
