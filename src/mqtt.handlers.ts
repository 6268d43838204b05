import { Logger } from '@nestjs/common'
import { MetadataScanner, type ModulesContainer } from '@nestjs/core'
import { NestMicroservice, type Transport } from '@nestjs/microservices'
import { MqttError } from './core/errors.js'
import { decorationsOf, parametersOf } from './mqtt.decorators.js'
import { mqttTransportId } from './mqtt.service.js'
import { assertHandlerOptions, type PatternHandler } from './transport/mqtt.handler-checks.js'
import { MqttTransport } from './transport/mqtt.transport.js'

/** Metadata keys of Nest, which does not export them. */
const PATTERN = 'microservices:pattern'
const TRANSPORT = 'microservices:transport'
const EXTRAS = 'microservices:pattern_extras'
const KIND = 'microservices:handler_type'
/** `PatternHandler.EVENT` of Nest. */
const EVENT = 2

type ValueOf<M> = M extends ReadonlyMap<infer _Key, infer Value> ? Value : never
type NestModule = ValueOf<ModulesContainer>
type Wrapper = ValueOf<NestModule['providers']>

interface Method {
  /** Name in the form `Class.method`. */
  readonly name: string
  readonly prototype: object
  readonly key: string
  readonly function: object
  readonly owner: Owner
}

interface Owner {
  readonly class: { readonly name: string }
  readonly wrapper: Wrapper
  readonly moduleKey: string
  readonly kind: 'controller' | 'provider'
}

/** Returns the methods that a transport with this id would handle. */
export function findPatternHandlers(
  modules: ModulesContainer,
  transportId: Transport | symbol,
): PatternHandler[] {
  return methodsOf(modules)
    .filter(method => isHandler(method.function, transportId))
    .map(({ name, prototype, key, function: method }) => ({
      name,
      patterns: [Reflect.getMetadata(PATTERN, Object(method))].flat(),
      method: Object(method),
      kind: Reflect.getMetadata(KIND, Object(method)) === EVENT ? 'events' : 'requests',
      extras: Reflect.getMetadata(EXTRAS, Object(method)),
      parameters: parametersOf(prototype, key),
      isForUnmatched: decorationsOf(method).some(({ decorator }) => decorator === '@OnMqttUnmatched'),
    }))
}

/**
 * Checks that every `@OnMqtt…` decorator names a connection of the application. Otherwise its method would never be called.
 * @throws MqttError `INVALID_OPTION`
 */
export function assertConnections(
  modules: ModulesContainer,
  connections: readonly (string | undefined)[],
): void {
  const decorations = methodsOf(modules).flatMap(({ name, function: method }) =>
    decorationsOf(method).map(decoration => ({ name, ...decoration })),
  )
  for (const { name, decorator, connection } of decorations) {
    if (connections.includes(connection)) continue
    const wanted =
      connection === undefined ? 'the connection without a name' : `the connection "${connection}"`
    const forRoot = connection === undefined ? '{ url }' : `{ name: '${connection}', url }`
    const named = connections.map(known => (known === undefined ? 'none' : `{ connection: '${known}' }`))
    throw new MqttError(
      'INVALID_OPTION',
      `${name}: ${decorator} is for ${wanted}, which the application does not have; add MqttModule.forRoot(${forRoot}) to the imports of your root module, or use one of these options in the decorator: ${named.join(', ')}`,
    )
  }
}

/**
 * Checks the providers with handlers. Nest applies guards, pipes, interceptors and filters to a provider only if the class
 * itself is listed in `providers`.
 * @throws MqttError `INVALID_OPTION`
 */
export function assertProviders(modules: ModulesContainer): void {
  const found = new Map<unknown, Set<string>>()
  for (const { name, owner, function: method } of methodsOf(modules)) {
    if (owner.kind === 'controller' || !isPattern(method)) continue
    const { wrapper, class: type } = owner
    if (wrapper.isTransient)
      throw new MqttError(
        'INVALID_OPTION',
        `${name}: a provider with Scope.TRANSIENT has an instance for each of its consumers, so it cannot have MQTT handlers; remove its scope, or move the handler to another class`,
      )
    if (wrapper.token !== wrapper.metatype)
      throw new MqttError(
        'INVALID_OPTION',
        `${name}: Nest applies no guards, pipes, interceptors and filters to the handlers of a custom provider; list the class itself, as in providers: [${type.name}]`,
      )
    const modulesOfClass = found.get(type) ?? new Set()
    found.set(type, modulesOfClass)
    if (modulesOfClass.has(owner.moduleKey)) continue
    modulesOfClass.add(owner.moduleKey)
    if (modulesOfClass.size === 2)
      new Logger('MqttModule').warn(
        `${type.name} has MQTT handlers and is listed in the providers of several modules. Each module has its own instance, and each instance handles every message. List it in one module, and export it from there`,
      )
  }
}

/** A method that is called for events of a connection, such as one with `@OnMqttConnect`. */
export interface ConnectionHook {
  /** Name in the form `Class.method`. */
  readonly name: string
  readonly decorator: string
  readonly call: (argument: unknown) => unknown
}

/**
 * Returns the methods that are called for events of a connection.
 * @throws MqttError `INVALID_OPTION` for a method of a request-scoped or transient class, which has no instance to call
 */
export function findConnectionHooks(
  modules: ModulesContainer,
  connectionName: string | undefined,
): ConnectionHook[] {
  return methodsOf(modules).flatMap(({ name, owner, key, function: method }) =>
    decorationsOf(method)
      .filter(({ connection }) => connection === connectionName && !isPattern(method))
      .map(({ decorator }) => {
        const { wrapper } = owner
        if (wrapper.isTransient || !wrapper.isDependencyTreeStatic())
          throw new MqttError(
            'INVALID_OPTION',
            `${name}: ${decorator} is called outside of any request, so its class cannot be request-scoped or transient; move the method to a class with the default scope`,
          )
        const instance: Record<string, (argument: unknown) => unknown> = Object(wrapper.instance)
        return { name, decorator, call: argument => instance[key]?.(argument) }
      }),
  )
}

const scanner = new MetadataScanner()

function methodsOf(modules: ModulesContainer): Method[] {
  return ownersOf(modules).flatMap(owner => {
    const prototype = prototypeOf(owner)
    if (prototype === undefined) return []
    return scanner.getAllMethodNames(prototype).map(key => ({
      name: `${owner.class.name}.${key}`,
      prototype,
      key,
      function: Reflect.get(prototype, key),
      owner,
    }))
  })
}

/** A class that is a controller and a provider has two instances. The controller handles messages. */
function ownersOf(modules: ModulesContainer): Owner[] {
  const all = [...modules.entries()]
  const controllers = all.flatMap(([moduleKey, module]) =>
    [...module.controllers.values()].flatMap(wrapper => ownerOf(wrapper, moduleKey, 'controller')),
  )
  const classes = new Set(controllers.map(owner => owner.class))
  const providers = all.flatMap(([moduleKey, module]) =>
    [...module.providers.values()].flatMap(wrapper =>
      ownerOf(wrapper, moduleKey, 'provider').filter(owner => !classes.has(owner.class)),
    ),
  )
  return [...controllers, ...providers]
}

function ownerOf(wrapper: Wrapper, moduleKey: string, kind: Owner['kind']): Owner[] {
  if (wrapper.isAlias) return []
  const { instance, metatype } = wrapper
  const type: unknown = wrapper.isNotMetatype ? Object(instance).constructor : metatype
  return typeof type === 'function' ? [{ class: type, wrapper, moduleKey, kind }] : []
}

function prototypeOf(owner: Owner): object | undefined {
  const prototype: unknown = Reflect.get(owner.class, 'prototype')
  return typeof prototype === 'object' && prototype !== Object.prototype
    ? (prototype ?? undefined)
    : undefined
}

function isPattern(method: unknown): boolean {
  return typeof method === 'function' && Reflect.hasMetadata(PATTERN, method)
}

function isHandler(method: unknown, transportId: Transport | symbol): boolean {
  if (typeof method !== 'function' || !isPattern(method)) return false
  const transport: unknown = Reflect.getMetadata(TRANSPORT, method)
  return transport === undefined || transport === transportId
}

/** The parts of Nest's microservice that bind handlers to a transport. */
interface Listeners {
  readonly container: { getModuleByKey(key: string): NestModule | undefined }
  registerPatternHandlers(wrapper: Wrapper, server: MqttTransport, moduleKey: string): void
}
interface Microservice {
  readonly serverInstance: unknown
  readonly container: { getModules(): ModulesContainer }
  readonly microservicesModule: { readonly listenersController: Listeners }
}

const IS_SET = Symbol.for('nestjs-mqtt.binds-providers')

/**
 * Makes Nest bind the handlers of providers to this transport in the same way as those of controllers, with the same
 * guards, pipes, interceptors and filters. Nest itself looks at controllers only. Applies to this transport only.
 */
export function bindProviders(): void {
  const { prototype } = NestMicroservice
  if (Object.hasOwn(prototype, IS_SET)) return
  const plain = prototype.registerListeners
  Object.defineProperty(prototype, IS_SET, { value: true })
  prototype.registerListeners = function () {
    // Seam: Nest declares these fields as private.
    const { serverInstance, container, microservicesModule }: Microservice = Object(this)
    if (!(serverInstance instanceof MqttTransport)) return plain.call(this)
    const id = serverInstance.transportId ?? mqttTransportId()
    assertHandlerOptions(findPatternHandlers(container.getModules(), id), serverInstance)
    plain.call(this)
    const listeners = overProviders(microservicesModule.listenersController)
    for (const { wrapper, moduleKey } of providersWithHandlers(container.getModules(), serverInstance))
      listeners.registerPatternHandlers(wrapper, serverInstance, moduleKey)
  }
}

function providersWithHandlers(modules: ModulesContainer, { transportId }: MqttTransport): Set<Owner> {
  const id = transportId ?? mqttTransportId()
  const methods = methodsOf(modules).filter(({ owner }) => owner.kind === 'provider')
  return new Set(methods.filter(method => isHandler(method.function, id)).map(({ owner }) => owner))
}

/** Nest looks up a request-scoped handler in the controllers of its module. This view has the providers there. */
function overProviders(listeners: Listeners): Listeners {
  const { container } = listeners
  const getModuleByKey = (key: string): NestModule | undefined => {
    const module = container.getModuleByKey(key)
    return module && Object.create(module, { controllers: { value: module.providers } })
  }
  return Object.create(listeners, {
    container: { value: Object.create(container, { getModuleByKey: { value: getModuleByKey } }) },
  })
}
