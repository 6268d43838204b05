import { Injectable, Logger } from '@nestjs/common'
import { type Reading, Truck } from './truck.js'

/** Anyone may publish with any truck id, so the number of trucks has a limit. */
const TRUCKS_KEPT = 1_000

/** Keeps the trucks in memory. */
@Injectable()
export class FleetService {
  private readonly logger = new Logger(FleetService.name)
  /** In the order of their last readings, oldest first. */
  private readonly byId = new Map<string, Truck>()

  get trucks(): Truck[] {
    return [...this.byId.values()].sort((one, other) => one.id.localeCompare(other.id))
  }

  find(truckId: string): Truck | undefined {
    return this.byId.get(truckId)
  }

  record(truckId: string, reading: Reading): Truck {
    const truck = this.byId.get(truckId) ?? this.meet(truckId)
    this.byId.delete(truckId)
    this.byId.set(truckId, truck)
    truck.record(reading)
    return truck
  }

  private meet(truckId: string): Truck {
    const [longestSilent] = this.byId.keys()
    if (this.byId.size >= TRUCKS_KEPT && longestSilent !== undefined) {
      this.byId.delete(longestSilent)
      this.logger.warn(
        `More than ${TRUCKS_KEPT} trucks; removed ${longestSilent}, the one silent for longest`,
      )
    }
    return new Truck(truckId)
  }
}
