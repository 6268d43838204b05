import { Controller, Get, ServiceUnavailableException } from '@nestjs/common'
import { type ConnectionState, MqttService, type MqttStats } from 'nestjs-mqtt'

interface Health {
  readonly status: ConnectionState['status']
  /** Why there is no connection. */
  readonly cause: string | undefined
  readonly stats: MqttStats
}

@Controller('health')
export class HealthController {
  constructor(private readonly mqtt: MqttService) {}

  @Get()
  health(): Health {
    const { state } = this.mqtt
    const stats = this.mqtt.stats()
    const cause = 'cause' in state ? state.cause?.message : undefined
    const health: Health = { status: state.status, cause, stats }
    // Without its subscriptions the application receives nothing, even while it is connected.
    if (state.status === 'connected' && stats.subscriptions.refused === 0) return health
    throw new ServiceUnavailableException(health)
  }
}
