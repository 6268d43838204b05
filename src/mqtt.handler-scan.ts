import type { ModulesContainer } from '@nestjs/core'
import type { Transport } from '@nestjs/microservices'
import { MqttError } from './core/errors.js'
import { topicParamsOf } from './mqtt.decorators.js'

/** Metadata keys of `@EventPattern` and `@MessagePattern`. Nest does not export them. */
const PATTERN = 'microservices:pattern'
const TRANSPORT = 'microservices:transport'

/** A controller method with `@EventPattern` or `@MessagePattern`. */
export interface PatternHandler {
  /** Name in the form `Controller.method`. */
  readonly name: string
  readonly patterns: readonly unknown[]
  /** Names in its `@TopicParam` decorators. */
  readonly topicParams: readonly string[]
}

/** Returns the controller methods that a transport with this id would handle. */
export function findPatternHandlers(
  modules: ModulesContainer,
  transportId: Transport | symbol,
): PatternHandler[] {
  return [...modules.values()]
    .flatMap(module => [...module.controllers.values()])
    .flatMap(controller => handlersOf(controller.metatype, transportId))
}

/**
 * Checks that every `@TopicParam` names a wildcard of its pattern. Otherwise it would be undefined for every message.
 * @param wildcardsOf returns the wildcards of a pattern, or undefined if the pattern cannot be checked
 * @throws MqttError `INVALID_OPTION`
 */
export function assertTopicParams(
  handlers: readonly PatternHandler[],
  wildcardsOf: (pattern: unknown) => readonly string[] | undefined,
): void {
  for (const { name, patterns, topicParams } of handlers) {
    const wildcards = patterns.map(wildcardsOf)
    if (wildcards.includes(undefined)) continue
    const known = new Set(wildcards.flatMap(names => names ?? []))
    const unknown = topicParams.find(param => !known.has(param))
    if (unknown === undefined) continue
    const list = [...known].map(param => `"${param}"`).join(', ')
    throw new MqttError(
      'INVALID_OPTION',
      `${name}: @TopicParam('${unknown}') is not a named wildcard of ${patterns.map(pattern => JSON.stringify(pattern)).join(', ')}; ${known.size === 0 ? `add a named wildcard to the pattern, such as "+${unknown}"` : `use one of ${list}`}`,
    )
  }
}

function handlersOf(controller: unknown, transportId: Transport | symbol): PatternHandler[] {
  if (typeof controller !== 'function') return []
  const prototype: unknown = controller.prototype
  if (typeof prototype !== 'object' || prototype === null) return []
  return Object.entries(Object.getOwnPropertyDescriptors(prototype))
    .filter(([, { value }]) => isHandler(value, transportId))
    .map(([method, { value }]) => ({
      name: `${controller.name}.${method}`,
      patterns: [Reflect.getMetadata(PATTERN, value)].flat(),
      topicParams: topicParamsOf(prototype, method),
    }))
}

function isHandler(method: unknown, transportId: Transport | symbol): boolean {
  if (typeof method !== 'function' || !Reflect.hasMetadata(PATTERN, method)) return false
  const transport: unknown = Reflect.getMetadata(TRANSPORT, method)
  return transport === undefined || transport === transportId
}
