import { Controller, Logger } from '@nestjs/common'
import { MessagePattern, Payload, RpcException } from '@nestjs/microservices'
import { TopicParam } from 'nestjs-mqtt'
import { FleetService } from '../fleet/fleet.service.js'
import { TruckIdPipe } from '../fleet/truck-id.pipe.js'
import { SET_LIMIT_TOPIC } from '../topics.js'
import { type SetLimit, SetLimitPipe } from './set-limit.pipe.js'

interface LimitAccepted {
  readonly accepted: true
  readonly limitCelsius: number
}

@Controller()
export class CommandsController {
  private readonly logger = new Logger(CommandsController.name)

  constructor(private readonly fleet: FleetService) {}

  /** Also handles plain messages, which get no response. */
  @MessagePattern(SET_LIMIT_TOPIC)
  setLimit(
    @TopicParam('truckId', TruckIdPipe) truckId: string,
    @Payload(SetLimitPipe) { limitCelsius }: SetLimit,
  ): LimitAccepted {
    const truck = this.fleet.find(truckId)
    if (truck === undefined) throw new RpcException(`there is no truck ${truckId}`)
    truck.limitCelsius = limitCelsius
    this.logger.log(`The limit of ${truckId} is now ${limitCelsius} °C`)
    return { accepted: true, limitCelsius }
  }
}
