import { ParseIntPipe } from '@nestjs/common'
import { Ctx, Payload } from '@nestjs/microservices'
import { describe, it } from 'vitest'
import {
  type MqttContext,
  MqttPacket,
  MqttTopic,
  OnMqttEvent,
  OnMqttRequest,
  type PublishPacket,
  TopicParam,
  UserProperty,
} from '../../src/index.js'

interface Reading {
  readonly celsius: number
}

describe('@OnMqttEvent and @OnMqttRequest with a pattern', () => {
  it('accept methods with any number of parameters, without a type argument', () => {
    class Handlers {
      @OnMqttEvent('devices/+deviceId/telemetry', { qos: 1, concurrency: 4 })
      async onTelemetry(
        @Payload() _reading: Reading,
        @TopicParam('deviceId', ParseIntPipe) _deviceId: number,
        @MqttTopic() _topic: string,
        @MqttPacket() _packet: PublishPacket,
        @UserProperty('trace') _trace: string | undefined,
        @Ctx() _context: MqttContext,
      ): Promise<void> {}

      @OnMqttEvent(['a', 'b'], { connection: 'edge' })
      onAny(): void {}

      @OnMqttRequest('devices/+deviceId/reboot')
      reboot(@TopicParam('deviceId') deviceId: string): string {
        return deviceId
      }
    }
    return Handlers
  })

  it('refuse unknown options and values', () => {
    // @ts-expect-error there is no option with this name
    OnMqttEvent('a', { retry: 1 })
    // @ts-expect-error there is no such QoS
    OnMqttRequest('a', { qos: 3 })
    // @ts-expect-error a pattern is a string
    OnMqttEvent({ cmd: 'a' })
  })
})

describe('@TopicParam with a contract', () => {
  const contract = { pattern: 'devices/+deviceId/#rest' } as const

  it('accepts the names of its wildcards', () => {
    TopicParam(contract, 'deviceId')
    TopicParam(contract, 'rest', ParseIntPipe)
  })

  it('refuses other names', () => {
    // @ts-expect-error the pattern has no wildcard with this name
    TopicParam(contract, 'devceId')
    // @ts-expect-error the name is missing
    TopicParam(contract)
  })
})
