import { MqttError } from '../errors.js'
import type { MqttConnection } from './connection/mqtt-connection.js'
import type { Subscriptions } from './connection/subscriptions.js'

/** Resolves when every SUBSCRIBE is answered, or with why it will not be. */
export function whenSubscribed(
  connection: MqttConnection,
  subscriptions: Subscriptions,
  timeoutMs: number,
): Promise<MqttError | undefined> {
  return new Promise(resolve => {
    const settle = (failure: MqttError | undefined): void => {
      clearTimeout(timer)
      detach()
      resolve(failure)
    }
    // Some brokers hang up on a subscription that they do not allow, and some say nothing.
    const detach = connection.attach({ lost: settle })
    const timer = setTimeout(() => {
      const { pending } = subscriptions.counts
      settle(
        new MqttError('TIMEOUT', `the broker did not answer ${pending} subscriptions within ${timeoutMs} ms`),
      )
    }, timeoutMs)
    void subscriptions.whenAnswered().then(() => settle(undefined))
  })
}
