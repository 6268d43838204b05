import { verdictOf } from '../../core/connection/reconnect-rules.js'
import { isMqttError, MqttError } from '../../core/errors.js'
import type { MqttConnection } from '../connection/mqtt-connection.js'
import type { Subscriptions } from './subscriptions.js'

/** Resolves when the broker has responded to every SUBSCRIBE, or rejects with the cause if it will not. */
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
        new MqttError(
          'TIMEOUT',
          `the broker did not respond to ${pending} subscriptions within ${timeoutMs} ms`,
        ),
      )
    }, timeoutMs)
    void subscriptions.whenAnswered().then(() => settle(undefined))
  })
}

/** Rejects with why `fail-fast` ended the start, and with what to do where a later attempt could succeed. */
export function failStart(error: unknown): never {
  const isOfAttempt = isMqttError(error, 'CONNECT_FAILED') || isMqttError(error, 'CONNECT_REFUSED')
  if (!isOfAttempt || verdictOf(error) === 'stop') throw error
  const { code, message, cause, reasonCode, serverReference } = error
  throw new MqttError(
    code,
    `${message}. Set connect: 'background' to start without a broker and connect later`,
    {
      cause,
      ...(reasonCode === undefined ? {} : { reasonCode }),
      ...(serverReference === undefined ? {} : { serverReference }),
    },
  )
}
