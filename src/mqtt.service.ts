import { Inject, type InjectionToken } from '@nestjs/common'
import { Transport } from '@nestjs/microservices'
import { distinctUntilChanged, Observable } from 'rxjs'
import type { ContractMessage, MqttMessage } from './client/inbound/subscriber.js'
import { MqttClient } from './client/mqtt-client.js'
import type { ConnectionState } from './core/connection/connection-state.js'
import type { HandlerOptions } from './options/handler-options.js'
import type { TopicAddress, TopicContract, TopicSource } from './options/topic-contract.js'
import { MqttClientProxy } from './transport/mqtt.client-proxy.js'
import { MqttTransport } from './transport/mqtt.transport.js'

/**
 * The MQTT client of the application, with Observables. `MqttModule` creates it, starts it with the application, and closes
 * it when the application has shut down.
 */
export class MqttService extends MqttClient {
  /** Emits the current state, and each new state. Never errors or completes. */
  get status$(): Observable<ConnectionState> {
    return new Observable<ConnectionState>(subscriber => {
      subscriber.next(this.state)
      return this.onState(state => subscriber.next(state))
    }).pipe(distinctUntilChanged())
  }

  /**
   * Returns the messages of a pattern as an Observable. Each subscriber has its own handler, which is removed when it
   * unsubscribes. Completes when the application closes.
   * @throws MqttError `INVALID_TOPIC_FILTER`, `INVALID_OPTION`
   */
  messages$<T = unknown>(pattern: string, options?: HandlerOptions): Observable<MqttMessage<T>>
  /** The same for a contract, or for one topic of it. Invalid messages are not emitted. */
  messages$<C extends TopicContract>(
    contract: C | TopicAddress<C>,
    options?: HandlerOptions,
  ): Observable<ContractMessage<C>>
  messages$(source: TopicSource, options: HandlerOptions = {}): Observable<MqttMessage> {
    return new Observable(subscriber => {
      const take = (message: MqttMessage): void => subscriber.next(message)
      const subscription =
        typeof source === 'string'
          ? this.subscribe(source, take, options)
          : this.subscribe(source, take, options)
      const stopListening = this.session.shutdown.onIntakeEnd(() => subscriber.complete())
      return () => {
        void subscription.unsubscribe()
        stopListening()
      }
    })
  }
}

/** Nest shows tokens in the error for what it cannot inject, so they say what to import. */
const ofConnection = (what: string, name: string): string =>
  `${what} of MqttModule.forRoot({ name: '${name}', url })`

// Seam: for the connection without a name the token is the class, and Nest shows the name of the class.
for (const token of [MqttService, MqttClientProxy, MqttTransport])
  Object.defineProperty(token, 'name', { value: `${token.name} of MqttModule.forRoot({ url })` })

/** Injection token of the {@link MqttService} of a connection. */
export function mqttServiceToken(name?: string): InjectionToken<MqttService> {
  return name === undefined ? MqttService : ofConnection('MqttService', name)
}

/** Injection token of the {@link MqttTransport} of a connection. */
export function mqttTransportToken(name?: string): InjectionToken<MqttTransport> {
  return name === undefined ? MqttTransport : ofConnection('MqttTransport', name)
}

/** Injection token of the {@link MqttClientProxy} of a connection. */
export function mqttClientToken(name?: string): InjectionToken<MqttClientProxy> {
  return name === undefined ? MqttClientProxy : ofConnection('MqttClientProxy', name)
}

/**
 * Transport id of a connection, for the decorator of a handler that belongs to one of several:
 * `@EventPattern('a/b', mqttTransportId('edge'))`. Without a name it is `Transport.MQTT`, so that decorators
 * written for Nest's built-in transport bind to this one.
 */
export function mqttTransportId(name?: string): Transport | symbol {
  return name === undefined ? Transport.MQTT : Symbol.for(`nestjs-mqtt:${name}`)
}

/** Injects the `MqttService` of the connection with this name, or of the connection without a name. */
export const InjectMqtt = (name?: string): ParameterDecorator & PropertyDecorator =>
  Inject(mqttServiceToken(name))

/** Injects the `MqttClientProxy` of the connection with this name, or of the connection without a name. */
export const InjectMqttClient = (name?: string): ParameterDecorator & PropertyDecorator =>
  Inject(mqttClientToken(name))
