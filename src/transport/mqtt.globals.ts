import { Logger } from '@nestjs/common'
import type { ApplicationConfig } from '@nestjs/core'

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
