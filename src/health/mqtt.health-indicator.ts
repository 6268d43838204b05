import { Inject, Injectable } from '@nestjs/common'
import { ModuleRef } from '@nestjs/core'
import { type HealthIndicatorResult, HealthIndicatorService } from '@nestjs/terminus'
import type { MqttHealth } from '../client/report.js'
import { oneLine } from '../core/log-lines.js'
import { mqttServiceToken } from '../mqtt.service.js'

/** Options of a check. */
export interface MqttIndicatorOptions {
  /** Name of the connection, if the application has several. @default the connection without a name */
  readonly connection?: string
  /** Key of the result. @default 'mqtt', or 'mqtt:' and the name of the connection */
  readonly key?: string
}

/** What a result contains besides its status. */
type IndicatorData = {
  readonly state: MqttHealth['state']
  /** Status of the connection, such as `connected` or `waiting`. */
  readonly connection: string
  readonly reasons: readonly string[]
  readonly refusedSubscriptions: readonly string[]
  readonly unansweredSubscriptions: readonly string[]
  readonly droppedInLastMinute: MqttHealth['droppedInLastMinute']
}

const NOT_STARTED = 'the broker has not granted every subscription since the start'
const DRAINING = 'the application is closing the connection'

/**
 * Checks of an MQTT connection for `@nestjs/terminus`. Add it to the `providers` of the module that imports
 * `TerminusModule`, and call its checks from `HealthCheckService#check`. No check waits for the broker.
 *
 * A connection with problems is `degraded` on terminus 12, which responds with status 200. Terminus 11 has no such status: the
 * result is then `up`, with `state: 'degraded'` and the reasons in its details.
 */
@Injectable()
export class MqttHealthIndicator {
  readonly #indicators: HealthIndicatorService
  readonly #modules: ModuleRef

  constructor(
    @Inject(HealthIndicatorService) indicators: HealthIndicatorService,
    @Inject(ModuleRef) modules: ModuleRef,
  ) {
    this.#indicators = indicators
    this.#modules = modules
  }

  /**
   * For a startup probe: `down` until the connection has been made and the broker has granted every subscription. After that
   * it stays `up`, even if the connection is lost.
   * @throws Error if there is no such connection
   */
  startup(options: MqttIndicatorOptions = {}): HealthIndicatorResult {
    const health = this.healthOf(options)
    if (health.hasStarted) return this.report('up', health, options)
    return this.report('down', health, options, NOT_STARTED)
  }

  /**
   * For a readiness probe: `down` without a connection, before the start, and as soon as the client drains. `degraded` with
   * a connection that has problems.
   * @throws Error if there is no such connection
   */
  readiness(options: MqttIndicatorOptions = {}): HealthIndicatorResult {
    const health = this.healthOf(options)
    if (health.isDraining) return this.report('down', health, options, DRAINING)
    if (!health.hasStarted && health.state !== 'down')
      return this.report('down', health, options, NOT_STARTED)
    return this.report(health.state, health, options)
  }

  /**
   * For a liveness probe: always `up`, because a restart of the process does not repair a broker or a network. The details
   * show the state of the connection.
   * @throws Error if there is no such connection
   */
  liveness(options: MqttIndicatorOptions = {}): HealthIndicatorResult {
    return this.report('up', this.healthOf(options), options)
  }

  private healthOf({ connection }: MqttIndicatorOptions): MqttHealth {
    return this.#modules.get(mqttServiceToken(connection), { strict: false }).health
  }

  private report(
    status: MqttHealth['state'],
    health: MqttHealth,
    { connection, key = connection === undefined ? 'mqtt' : `mqtt:${connection}` }: MqttIndicatorOptions,
    reason?: string,
  ): HealthIndicatorResult {
    const indicator = this.#indicators.check(key)
    const data = dataOf(health, reason)
    if (status === 'down') return indicator.down(data)
    const degraded: unknown = status === 'degraded' ? Reflect.get(indicator, 'degraded') : undefined
    // Seam: terminus 11 has no such method, and that of terminus 12 returns a result, too.
    if (typeof degraded === 'function')
      return Reflect.apply(degraded, indicator, [data]) as HealthIndicatorResult
    return indicator.up(data)
  }
}

/** Without the limits of the broker and without error objects, because the result is sent to whoever asks. */
function dataOf(health: MqttHealth, reason: string | undefined): IndicatorData {
  const { state, connection, reasons, refusedSubscriptions, unansweredSubscriptions } = health
  return {
    state,
    connection: connection.status,
    reasons: reason === undefined ? reasons : [reason, ...reasons],
    refusedSubscriptions: firstOf(refusedSubscriptions),
    unansweredSubscriptions: firstOf(unansweredSubscriptions),
    droppedInLastMinute: health.droppedInLastMinute,
  }
}

/** Thousands of long filters must not make a probe fail by its size. The reasons contain their number. */
const MOST_LISTED = 100

function firstOf(subscriptions: readonly string[]): readonly string[] {
  return subscriptions.slice(0, MOST_LISTED).map(oneLine)
}
