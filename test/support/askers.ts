import 'reflect-metadata'
import { Module, type Type } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { ClientProxyFactory, type MicroserviceOptions, Transport } from '@nestjs/microservices'
import type { MqttClient } from 'mqtt'
import { lastValueFrom, type Observable, take, toArray } from 'rxjs'
import { isMqttError, MqttClientProxy } from '../../src/index.js'
import { CollectingLogger, startMicroservice } from './nest-app.js'

export const VERSIONS = [5, 4] as const
export type Version = (typeof VERSIONS)[number]

/** The complete result of one request. */
export interface Heard {
  readonly values: readonly unknown[]
  readonly error: unknown
}

/** One that asks and tells, whoever made it. */
export interface Asker {
  ask(topic: string, data: unknown): Promise<Heard>
  /** The first values, after which nothing more is wanted. */
  take(topic: string, count: number): Promise<unknown[]>
  tell(topic: string, data: unknown): Promise<unknown>
  close(): Promise<unknown>
}

export function heardFrom(responses: Observable<unknown>): Promise<Heard> {
  return new Promise(resolve => {
    const values: unknown[] = []
    responses.subscribe({
      next: value => values.push(value),
      error: (error: unknown) => resolve({ values, error }),
      complete: () => resolve({ values, error: undefined }),
    })
  })
}

interface Sends {
  send(topic: string, data: unknown): Observable<unknown>
  emit(topic: string, data: unknown): Observable<unknown>
  close(): unknown
}

/** Anything with `send()` and `emit()`. */
export function askerOf(client: Sends): Asker {
  return {
    ask: (topic, data) => heardFrom(client.send(topic, data)),
    take: (topic, count) => lastValueFrom(client.send(topic, {}).pipe(take(count), toArray())),
    tell: (topic, data) => lastValueFrom(client.emit(topic, data), { defaultValue: undefined }),
    close: async () => client.close(),
  }
}

/** What a responder sent as its error, as the built-in client gives it. */
const sentError = (error: unknown) => (isMqttError(error, 'REQUEST_FAILED') ? error.response : error)

export type Ask = (url: string, protocolVersion: Version) => Promise<Asker>

export const builtInClient: Ask = async (url, protocolVersion) =>
  askerOf(ClientProxyFactory.create({ transport: Transport.MQTT, options: { url, protocolVersion } }))

export const ourProxy: Ask = async (url, protocolVersion) =>
  askerOf(new MqttClientProxy({ url, protocolVersion }))

export const ourProxyForBuiltIn: Ask = async (url, protocolVersion) =>
  askerOf(new MqttClientProxy({ url, protocolVersion, peer: 'nest' }))

/** `MqttService.requestStream`, in the protocol of the version or in the envelope of the built-in transport. */
export const ourStream =
  (protocol?: 'nest'): Ask =>
  async (url, protocolVersion) => {
    const { app, mqtt } = await startMicroservice({ url, protocolVersion }, {})
    return {
      ask: async (topic, data) => {
        const values: unknown[] = []
        try {
          const options = protocol === undefined ? {} : { protocol }
          for await (const value of mqtt.requestStream(topic, data, options)) values.push(value)
          return { values, error: undefined }
        } catch (error) {
          return { values, error: sentError(error) }
        }
      },
      take: async (topic, count) => {
        const values: unknown[] = []
        for await (const value of mqtt.requestStream(topic, {}, protocol === undefined ? {} : { protocol }))
          if (values.push(value) === count) break
        return values
      },
      tell: (topic, data) => mqtt.publish(topic, data),
      close: () => app.close(),
    }
  }

/** `MqttService.request`. */
export const ourRequest: Ask = async (url, protocolVersion) => {
  const { app, mqtt } = await startMicroservice({ url, protocolVersion }, {})
  return {
    ask: (topic, data) =>
      mqtt.request(topic, data).then(
        value => ({ values: [value], error: undefined }),
        (error: unknown) => ({ values: [], error: sentError(error) }),
      ),
    take: async topic => [await mqtt.request(topic, {})],
    tell: (topic, data) => mqtt.publish(topic, data),
    close: () => app.close(),
  }
}

/** An application on the built-in transport, whose subscriptions the broker has. */
export async function startBuiltIn(url: string, protocolVersion: Version, controllers: Type[]) {
  @Module({ controllers })
  class BuiltInModule {}
  const app = await NestFactory.createMicroservice<MicroserviceOptions>(BuiltInModule, {
    transport: Transport.MQTT,
    options: { url, protocolVersion },
    logger: new CollectingLogger(),
    abortOnError: false,
  })
  await app.listen()
  await builtInIsSubscribed(app)
  return app
}

/** The built-in transport waits for no SUBACK; the broker responds in order. */
export async function builtInIsSubscribed(app: { unwrap<T>(): T }): Promise<void> {
  await app.unwrap<MqttClient>().subscribeAsync('subscribed-last')
}
