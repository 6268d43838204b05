import type { ArgumentsHost } from '@nestjs/common'
import { BaseRpcExceptionFilter, RpcException } from '@nestjs/microservices'
import { throwError } from 'rxjs'
import { readSafely, withOriginal } from '../core/errors.js'
import { toldBy } from '../core/inbound/told-error.js'
import { MqttContext } from './mqtt.context.js'

const IS_SET = Symbol.for('nestjs-mqtt.tells-reasons')
const HIDDEN = { status: 'error', message: 'Internal server error' } as const

/**
 * Makes Nest's default RPC exception filter pass on the reason of errors that are meant for the sender, such as those of
 * pipes. Applies to handlers of this package only. Exception filters of the application still run first.
 */
export function tellReasons(): void {
  const { prototype } = BaseRpcExceptionFilter
  if (Object.hasOwn(prototype, IS_SET)) return
  const plain = prototype.catch
  Object.defineProperty(prototype, IS_SET, { value: true })
  prototype.catch = function (exception: unknown, host: ArgumentsHost) {
    if (exception instanceof RpcException || !isOurs(host)) return plain.call(this, exception, host)
    const told = readSafely(() => toldBy(exception), undefined)
    // Nest's filter logs the error with its stack.
    if (told === undefined) plain.call(this, exception, host)
    const failure = withOriginal({ ...(told ?? HIDDEN) }, exception)
    return throwError(() => failure)
  }
}

function isOurs(host: ArgumentsHost): boolean {
  return host.getType() === 'rpc' && host.switchToRpc().getContext() instanceof MqttContext
}
