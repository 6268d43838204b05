import { Controller, Get, NotFoundException, Param } from '@nestjs/common'
import { FleetService } from './fleet.service.js'
import type { Alarm, Reading, Truck } from './truck.js'

interface TruckView {
  readonly id: string
  readonly limitCelsius: number
  readonly lastReading: Reading | undefined
  readonly alarm: Alarm | undefined
}

@Controller('trucks')
export class FleetController {
  constructor(private readonly fleet: FleetService) {}

  @Get()
  list(): TruckView[] {
    return this.fleet.trucks.map(viewOf)
  }

  @Get(':truckId')
  one(@Param('truckId') truckId: string): TruckView & { readonly readings: readonly Reading[] } {
    const truck = this.fleet.find(truckId)
    if (truck === undefined) throw new NotFoundException(`there is no truck ${truckId}`)
    return { ...viewOf(truck), readings: truck.readings }
  }
}

function viewOf({ id, limitCelsius, lastReading, alarm }: Truck): TruckView {
  return { id, limitCelsius, lastReading, alarm }
}
