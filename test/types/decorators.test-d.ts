import { ParseIntPipe } from '@nestjs/common'
import { Ctx, MqttRecord, Payload } from '@nestjs/microservices'
import { type Observable, of } from 'rxjs'
import * as v from 'valibot'
import { describe, it } from 'vitest'
import {
  type ConnectedSession,
  defineTopic,
  MqttBatch,
  type MqttBatchContext,
  type MqttContext,
  type MqttError,
  type MqttMessage,
  MqttPacket,
  MqttTopic,
  OnMqttConnect,
  OnMqttDisconnect,
  OnMqttEvent,
  OnMqttRequest,
  OnMqttSessionLost,
  OnMqttUnmatched,
  type PublishPacket,
  TopicParam,
  type TopicPayload,
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

const telemetry = defineTopic('devices/+deviceId/telemetry', {
  schema: v.object({ celsius: v.pipe(v.string(), v.transform(Number)) }),
  qos: 1,
})
const reboot = defineTopic('devices/+deviceId/reboot', {
  schema: v.object({ delaySeconds: v.number() }),
  response: v.object({ accepted: v.boolean() }),
})
const untyped = defineTopic('devices/+deviceId/log')

describe('@OnMqttEvent with a contract', () => {
  it('accepts methods whose first parameter takes the output of its schema', () => {
    class Handlers {
      @OnMqttEvent(telemetry, { concurrency: 4, connection: 'edge' })
      async named(
        @Payload() _reading: TopicPayload<typeof telemetry>,
        @TopicParam(telemetry, 'deviceId') _deviceId: string,
        @Ctx() _context: MqttContext,
      ): Promise<void> {}

      @OnMqttEvent(telemetry)
      structural(@Payload() _reading: Reading): void {}

      @OnMqttEvent(telemetry)
      wider(@Payload() _reading: object): void {}

      @OnMqttEvent(telemetry)
      nothing(): void {}

      @OnMqttEvent(untyped)
      anything(@Payload() _line: Reading, @MqttTopic() _topic: string): void {}
    }
    return Handlers
  })

  it('accepts methods that read something else first', () => {
    class Handlers {
      @OnMqttEvent(telemetry)
      param(@TopicParam(telemetry, 'deviceId') _deviceId: string, @Payload() _reading: Reading): void {}

      @OnMqttEvent(telemetry)
      context(@Ctx() _context: MqttContext, @Payload('celsius') _celsius: number): void {}
    }
    return Handlers
  })

  it('refuses a method with another payload', () => {
    class Handlers {
      // @ts-expect-error the payload has no property with this name
      @OnMqttEvent(telemetry)
      other(@Payload() _reading: { readonly fahrenheit: number }): void {}

      // @ts-expect-error the handler receives the output of the schema, a number
      @OnMqttEvent(telemetry)
      input(@Payload() _reading: { readonly celsius: string }, @MqttTopic() _topic: string): void {}

      // @ts-expect-error a list needs the option batch
      @OnMqttEvent(telemetry)
      list(@Payload() _readings: Reading[]): void {}
    }
    return Handlers
  })

  it('with batch, accepts methods whose first parameter takes a list of payloads', () => {
    class Handlers {
      @OnMqttEvent(telemetry, { batch: { maxMessages: 10 } })
      list(@Payload() _readings: Reading[], @MqttBatch() _messages: readonly MqttMessage[]): void {}

      @OnMqttEvent(telemetry, { batch: { maxMessages: 10 } })
      readonlyList(@Payload() _readings: readonly Reading[]): void {}

      @OnMqttEvent(telemetry, { batch: { maxMessages: 10 } })
      messages(@MqttBatch() _messages: readonly MqttMessage[]): void {}

      @OnMqttEvent(telemetry, { batch: { maxMessages: 10 } })
      context(@Ctx() _context: MqttBatchContext): void {}

      // @ts-expect-error a batch is a list
      @OnMqttEvent(telemetry, { batch: { maxMessages: 10 } })
      single(@Payload() _reading: Reading): void {}
    }
    return Handlers
  })
})

describe('@OnMqttRequest with a contract', () => {
  it('accepts methods that return the input of its response schema', () => {
    class Handlers {
      @OnMqttRequest(reboot)
      value(@Payload() { delaySeconds }: TopicPayload<typeof reboot>): { accepted: boolean } {
        return { accepted: delaySeconds > 0 }
      }

      @OnMqttRequest(reboot)
      async promise(): Promise<{ accepted: boolean }> {
        return { accepted: true }
      }

      @OnMqttRequest(reboot)
      observable(): Observable<{ accepted: boolean }> {
        return of({ accepted: true })
      }

      @OnMqttRequest(reboot)
      async *iterable(): AsyncGenerator<{ accepted: boolean }> {
        yield { accepted: true }
      }

      @OnMqttRequest(reboot)
      record(): MqttRecord<{ accepted: boolean }> {
        return new MqttRecord({ accepted: true })
      }

      @OnMqttRequest(untyped)
      anything(@Payload() line: string): string {
        return line
      }
    }
    return Handlers
  })

  it('refuses another response or payload, and a batch', () => {
    class Handlers {
      // @ts-expect-error the response has no property with this name
      @OnMqttRequest(reboot)
      response(): { done: boolean } {
        return { done: true }
      }

      // @ts-expect-error the promise has another value
      @OnMqttRequest(reboot)
      async promise(): Promise<boolean> {
        return true
      }

      // @ts-expect-error the payload has another type
      @OnMqttRequest(reboot)
      payload(@Payload() _delay: number): { accepted: boolean } {
        return { accepted: true }
      }
    }
    // @ts-expect-error a request is handled alone
    OnMqttRequest(reboot, { batch: { maxMessages: 2 } })
    return Handlers
  })
})

describe('the decorators for a connection', () => {
  it('accept methods that take their argument, or none', () => {
    class Hooks {
      @OnMqttConnect({ connection: 'edge' })
      onConnect(_session: ConnectedSession): void {}

      @OnMqttDisconnect()
      async onDisconnect(_cause: MqttError | undefined): Promise<void> {}

      @OnMqttSessionLost()
      onSessionLost(): void {}

      @OnMqttUnmatched({ codec: 'bytes' })
      onUnmatched(@Payload() _payload: Buffer, @MqttTopic() _topic: string): void {}
    }
    return Hooks
  })

  it('refuse methods that need another argument, and options of a subscription', () => {
    class Hooks {
      // @ts-expect-error the argument is the session
      @OnMqttConnect()
      onConnect(_session: string): void {}

      // @ts-expect-error there may be no cause
      @OnMqttDisconnect()
      onDisconnect(_cause: MqttError): void {}
    }
    // @ts-expect-error it has no subscription
    OnMqttUnmatched({ qos: 1 })
    return Hooks
  })
})
