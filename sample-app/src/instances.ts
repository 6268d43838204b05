import { Injectable, type OnApplicationBootstrap, type OnModuleDestroy } from '@nestjs/common'
import { Broker } from './broker/broker.js'
import { Child } from './child.js'
import { Config } from './config.js'

/** Further instances of the service. They have no trucks, and share the subscription to alarms with this one. */
@Injectable()
export class Instances implements OnApplicationBootstrap, OnModuleDestroy {
  private children: Child[] = []

  constructor(
    private readonly config: Config,
    private readonly broker: Broker,
  ) {}

  onApplicationBootstrap(): void {
    for (let number = 2; number <= this.config.instances; number += 1)
      this.children.push(
        new Child('main.js', [], {
          INSTANCE: `operations-${number}`,
          INSTANCES: '1',
          MQTT_URL: this.broker.url,
          PORT: '0',
          TRUCKS: '0',
        }),
      )
  }

  async onModuleDestroy(): Promise<void> {
    await Promise.all(this.children.map(child => child.stop()))
  }
}
