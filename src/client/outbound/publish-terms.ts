import { setMaxListeners } from 'node:events'
import { MqttError } from '../../core/errors.js'
import type {
  GivenUp,
  OutboundMessage,
  Publication,
  PublishTerms,
} from '../../core/outbound/outbound-message.js'

/** Ends a publish when its `timeoutMs` expires or its `signal` is aborted. */
export function withTerms(
  message: OutboundMessage,
  { timeoutMs, signal }: PublishTerms,
  promise: Publication,
  giveUp: (publication: Publication, reason: GivenUp, cause: MqttError) => void,
): Publication {
  if (timeoutMs === undefined && signal === undefined) return promise
  const abort = (): void => {
    const text = `the publish to "${message.topic}" was aborted before the broker acknowledged it`
    giveUp(publication, 'aborted', new MqttError('ABORTED', text, { cause: signal?.reason }))
  }
  const expire = (): void => {
    const text = `the broker did not acknowledge the publish to "${message.topic}" within ${timeoutMs} ms`
    giveUp(publication, 'expired', new MqttError('TIMEOUT', text))
  }
  const timer = timeoutMs === undefined ? undefined : setTimeout(expire, timeoutMs)
  if (signal !== undefined) {
    // Many publishes may share one signal, so many listeners are not a leak.
    setMaxListeners(0, signal)
    signal.addEventListener('abort', abort)
  }
  const end = (): void => {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
  const publication: Publication = {
    message,
    waiting: undefined,
    pending: undefined,
    settle: outcome => {
      end()
      promise.settle(outcome)
    },
    fail: error => {
      end()
      promise.fail(error)
    },
  }
  return publication
}
