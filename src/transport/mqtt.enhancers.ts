import { type ArgumentsHost, Logger } from '@nestjs/common'
import type { ApplicationConfig } from '@nestjs/core'
import { BaseRpcExceptionFilter, RpcException } from '@nestjs/microservices'
import { throwError } from 'rxjs'
import { publicErrorOf, readSafely, withOriginal } from '../core/errors.js'
import { MqttContext } from './mqtt.context.js'

const KINDS = ['Pipes', 'Guards', 'Interceptors', 'Filters'] as const
type Enhancers = Record<(typeof KINDS)[number], readonly object[]>

/**
 * Warns about global pipes, guards, interceptors and filters that are registered after the handlers. Nest silently does not
 * apply them to these handlers.
 */
export class GlobalEnhancers {
  /** Private, so that `util.inspect` does not show the objects of the application. */
  readonly #config: ApplicationConfig
  #ofHandlers: Enhancers | undefined

  constructor(config: ApplicationConfig) {
    this.#config = config
  }

  handlerAdded(): void {
    this.#ofHandlers = this.present()
  }

  /** Warns once about each enhancer that was registered too late. */
  check(): void {
    const before = this.#ofHandlers
    if (before === undefined) return
    const now = this.present()
    const late = KINDS.flatMap(kind =>
      now[kind]
        .filter(enhancer => !before[kind].includes(enhancer))
        .map(enhancer => `useGlobal${kind}(${enhancer.constructor.name})`),
    )
    if (late.length === 0) return
    this.#ofHandlers = now
    new Logger('MqttModule').warn(
      `MQTT handlers run without app.${late.join(', app.')}, because it was called after app.connectMicroservice(). Use this order: app.useGlobalPipes(…) and the like; app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true }); await app.startAllMicroservices()`,
    )
  }

  private present(): Enhancers {
    const config = this.#config
    return {
      Pipes: config.getGlobalPipes(),
      Guards: config.getGlobalGuards(),
      Interceptors: config.getGlobalInterceptors(),
      Filters: config.getGlobalFilters(),
    }
  }
}

const IS_SET = Symbol.for('nestjs-mqtt.exposes-reasons')
const HIDDEN = { status: 'error', message: 'Internal server error' } as const

/**
 * Makes Nest's default RPC exception filter pass on the reason of errors that are meant for the sender, such as those of
 * pipes. Applies to handlers of this package only. Exception filters of the application still run first.
 */
export function exposeReasons(): void {
  const { prototype } = BaseRpcExceptionFilter
  if (Object.hasOwn(prototype, IS_SET)) return
  const plain = prototype.catch
  Object.defineProperty(prototype, IS_SET, { value: true })
  prototype.catch = function (exception: unknown, host: ArgumentsHost) {
    if (exception instanceof RpcException || !isOurs(host)) return plain.call(this, exception, host)
    const known = readSafely(() => publicErrorOf(exception), undefined)
    // Nest's filter logs the error with its stack.
    if (known === undefined) plain.call(this, exception, host)
    const failure = withOriginal({ ...(known ?? HIDDEN) }, exception)
    return throwError(() => failure)
  }
}

function isOurs(host: ArgumentsHost): boolean {
  return host.getType() === 'rpc' && host.switchToRpc().getContext() instanceof MqttContext
}
