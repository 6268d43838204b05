import type { LogLevel } from '../core/connection/connection-log.js'
import { resolveOptions } from './option-checks.js'
import type { MqttModuleOptions } from './options.js'
import type { ResolvedOptions } from './resolved-options.js'
import { invalidOption } from './schema.js'

/** Where a client writes its log: `console` fits. */
export interface MqttLogger {
  error(text: string): void
  warn(text: string): void
  log(text: string): void
  debug(text: string): void
}

/** Options of a client without Nest. */
export interface MqttConnectOptions extends MqttModuleOptions {
  /** Takes the log lines of this client. @default none: the client logs nothing */
  readonly logger?: MqttLogger
}

const DOOR = 'MqttClient options'
const LEVELS: readonly LogLevel[] = ['error', 'warn', 'log', 'debug']
const ignore = (): void => {}
const SILENT: MqttLogger = { error: ignore, warn: ignore, log: ignore, debug: ignore }

/** @throws MqttError `INVALID_OPTION` */
export function resolveConnectOptions(
  options: MqttConnectOptions,
): ResolvedOptions & { readonly logger: MqttLogger } {
  const { logger = SILENT, ...connection } = options ?? {}
  if (!isLogger(logger))
    throw invalidOption(DOOR, '"logger" must be an object with the functions error, warn, log and debug')
  return { ...resolveOptions(connection, DOOR), logger }
}

function isLogger(value: unknown): value is MqttLogger {
  if (typeof value !== 'object' || value === null) return false
  return LEVELS.every(level => typeof Reflect.get(value, level) === 'function')
}
