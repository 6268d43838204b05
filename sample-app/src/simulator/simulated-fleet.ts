import { Injectable, type OnApplicationBootstrap, type OnModuleDestroy } from '@nestjs/common'
import { Broker } from '../broker/broker.js'
import { Config } from '../config/config.js'
import { SimulatedTruck, type SimulatedTruckOptions } from './simulated-truck.js'

const FLEET: readonly SimulatedTruckOptions[] = [
  { truckId: 'truck-1', setPointCelsius: -20, intervalMs: 500, firstDoorOpenMs: 10_000 },
  { truckId: 'truck-2', setPointCelsius: -19, intervalMs: 600, firstDoorOpenMs: 25_000 },
  { truckId: 'truck-3', setPointCelsius: -22, intervalMs: 700, firstDoorOpenMs: 40_000 },
  { truckId: 'truck-4', setPointCelsius: -18, intervalMs: 850, firstDoorOpenMs: 55_000 },
  { truckId: 'truck-5', setPointCelsius: -21, intervalMs: 1_000, firstDoorOpenMs: 70_000 },
]

/** Simulated trucks, so that you can try the application without devices. */
@Injectable()
export class SimulatedFleet implements OnApplicationBootstrap, OnModuleDestroy {
  private trucks: SimulatedTruck[] = []

  constructor(
    private readonly config: Config,
    private readonly broker: Broker,
  ) {}

  onApplicationBootstrap(): void {
    if (!this.config.simulate) return
    this.trucks = FLEET.map(options => new SimulatedTruck(this.broker.url, options))
  }

  /** Runs after the application has drained and before it disconnects, so that trucks keep publishing during a drain. */
  async onModuleDestroy(): Promise<void> {
    await Promise.all(this.trucks.map(truck => truck.stop()))
  }
}
