import { distinctUntilChanged, Observable } from 'rxjs'
import type { MqttMessage } from './client/inbound/subscriber.js'
import { MqttClient } from './client/mqtt-client.js'
import type { ConnectionState } from './core/connection/connection-state.js'
import type { HandlerOptions } from './options/handler-options.js'

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
  messages$<T = unknown>(pattern: string, options: HandlerOptions = {}): Observable<MqttMessage<T>> {
    return new Observable(subscriber => {
      const take = (message: MqttMessage<T>): void => subscriber.next(message)
      const subscription = this.subscribe<T>(pattern, take, options)
      const stopListening = this.session.shutdown.onDrain(() => subscriber.complete())
      return () => {
        void subscription.unsubscribe()
        stopListening()
      }
    })
  }
}
