import type { ModulesContainer } from '@nestjs/core'
import type { Transport } from '@nestjs/microservices'

/** Metadata keys of `@EventPattern` and `@MessagePattern`, which Nest does not export. */
const PATTERN = 'microservices:pattern'
const TRANSPORT = 'microservices:transport'

/** Controller methods with a pattern that a transport with this id would take, as `Controller.method`. */
export function findPatternHandlers(modules: ModulesContainer, transportId: Transport | symbol): string[] {
  return [...modules.values()]
    .flatMap(module => [...module.controllers.values()])
    .flatMap(controller => handlersOf(controller.metatype, transportId))
}

function handlersOf(controller: unknown, transportId: Transport | symbol): string[] {
  if (typeof controller !== 'function') return []
  const prototype: unknown = controller.prototype
  if (typeof prototype !== 'object' || prototype === null) return []
  return Object.entries(Object.getOwnPropertyDescriptors(prototype))
    .filter(([, { value }]) => isHandler(value, transportId))
    .map(([method]) => `${controller.name}.${method}`)
}

function isHandler(method: unknown, transportId: Transport | symbol): boolean {
  if (typeof method !== 'function' || !Reflect.hasMetadata(PATTERN, method)) return false
  const transport: unknown = Reflect.getMetadata(TRANSPORT, method)
  return transport === undefined || transport === transportId
}
