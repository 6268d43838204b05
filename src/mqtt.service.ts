import { distinctUntilChanged, Observable } from 'rxjs'
import type { ContractMessage, MqttMessage } from './client/inbound/subscriber.js'
import { MqttClient } from './client/mqtt-client.js'
import type { ConnectionState } from './core/connection/connection-state.js'
import type { HandlerOptions } from './options/handler-options.js'
import type { TopicContract } from './options/topic-contract.js'

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
  /** The same for a contract, which validates the payload. Invalid messages are not emitted. */
  messages$<C extends TopicContract>(contract: C, options?: HandlerOptions): Observable<ContractMessage<C>>
  messages$(source: string | TopicContract, options: HandlerOptions = {}): Observable<MqttMessage> {
    return new Observable(subscriber => {
      const take = (message: MqttMessage): void => subscriber.next(message)
      const subscription =
        typeof source === 'string'
          ? this.subscribe(source, take, options)
          : this.subscribe(source, take, options)
      const stopListening = this.session.shutdown.onDrain(() => subscriber.complete())
      return () => {
        void subscription.unsubscribe()
        stopListening()
      }
    })
  }
}
