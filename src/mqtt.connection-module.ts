import {
  Inject,
  Logger,
  Module,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
  type OnModuleDestroy,
  type OnModuleInit,
  type Provider,
} from '@nestjs/common'
import { ApplicationConfig, ModulesContainer } from '@nestjs/core'
import { MqttSession } from './client/mqtt-session.js'
import { describeCause, MqttError } from './core/errors.js'
import { counted } from './core/log-lines.js'
import {
  assertConnections,
  assertProviders,
  bindProviders,
  type ConnectionHook,
  findConnectionHooks,
  findPatternHandlers,
} from './mqtt.handlers.js'
import {
  MqttService,
  mqttClientToken,
  mqttServiceToken,
  mqttTransportId,
  mqttTransportToken,
} from './mqtt.service.js'
import { resolveOptions } from './options/option-checks.js'
import type { MqttModuleOptions } from './options/options.js'
import { type ResolvedOptions, Sealed } from './options/resolved-options.js'
import { loggerOf, MqttClientProxy } from './transport/mqtt.client-proxy.js'
import { assertHandlers, GlobalEnhancers } from './transport/mqtt.handler-checks.js'
import { MqttTransport } from './transport/mqtt.transport.js'

/** Token of the raw options. Private to the module of each connection. */
export const MQTT_OPTIONS = Symbol('nestjs-mqtt:options')

const RESOLVED_OPTIONS = Symbol('nestjs-mqtt:resolved-options')
const CONNECTION_NAME = Symbol('nestjs-mqtt:name')
/** The transport of this module, whatever the name of its connection. */
const OWN_TRANSPORT = Symbol('nestjs-mqtt:transport')

const START_GRACE_MS = 10_000

const GLOBALS = Symbol('nestjs-mqtt:globals')

/** One MQTT connection of the application: starts it, checks its handlers, and closes it. `forRoot()` imports it. */
@Module({})
export class MqttConnectionModule
  implements OnModuleInit, OnApplicationBootstrap, OnModuleDestroy, OnApplicationShutdown
{
  private readonly logger: Logger
  private startTimer: NodeJS.Timeout | undefined
  private hooks: ConnectionHooks | undefined
  /** Private, so that `util.inspect` does not show the whole application. */
  readonly #modules: ModulesContainer

  constructor(
    @Inject(MqttSession) private readonly session: MqttSession,
    @Inject(OWN_TRANSPORT) private readonly transport: MqttTransport,
    @Inject(CONNECTION_NAME) private readonly connectionName: { readonly name: string | undefined },
    @Inject(ModulesContainer) modules: ModulesContainer,
    @Inject(GLOBALS) private readonly globals: GlobalEnhancers,
  ) {
    this.logger = new Logger(contextOf('MqttModule', connectionName.name))
    this.#modules = modules
    bindProviders()
  }

  /**
   * @throws MqttError `INVALID_OPTION` if two connections have the same name, or a handler cannot work; with `fail-fast`, the
   * cause of the failed start
   */
  async onModuleInit(): Promise<void> {
    const { name } = this.connectionName
    const connections = connectionsOf(this.#modules).map(connection => connection.name)
    const namesakes = connections.filter(connection => connection === name)
    if (namesakes.length > 1) {
      const which = name === undefined ? 'without a name' : `named "${name}"`
      throw new MqttError(
        'INVALID_OPTION',
        `MqttModule.forRoot() is imported ${namesakes.length} times ${which}; import it once, or give each connection a name`,
      )
    }
    // One connection checks all handlers.
    if (connections[0] === name) {
      assertConnections(this.#modules, connections)
      assertProviders(this.#modules)
    }
    assertHandlers(findPatternHandlers(this.#modules, mqttTransportId(name)), pattern =>
      this.transport.wildcardsOf(pattern),
    )
    this.hooks = new ConnectionHooks(findConnectionHooks(this.#modules, name), this.session, this.logger)
    await this.session.start()
  }

  onApplicationBootstrap(): void {
    this.globals.check()
    this.hooks?.begin()
    if (this.transport.isConnectedToApp) return this.expectStart()
    // Without a transport, nothing else starts the handlers that were added at run time.
    this.session.dispatcher.start()
    const { name } = this.connectionName
    const names = findPatternHandlers(this.#modules, mqttTransportId(name)).map(handler => handler.name)
    if (names.length === 0) return
    const argument = name === undefined ? '' : JSON.stringify(name)
    this.logger.warn(
      `${counted(names.length, 'handler')} may be for this connection (${names.slice(0, 3).join(', ')}), but no transport runs them. Before the application starts, add: app.connectMicroservice(MqttModule.microservice(${argument}), { inheritAppConfig: true }); await app.startAllMicroservices()`,
    )
  }

  /** An application that starts its microservices after `listen()` has some time for it. */
  private expectStart(): void {
    this.startTimer = setTimeout(() => {
      if (!this.transport.isListening)
        this.logger.warn(
          'the handlers of this connection do not run: connectMicroservice() was called, but not app.startAllMicroservices()',
        )
    }, START_GRACE_MS).unref()
  }

  /** Keeps the connection open, because HTTP handlers may still run and publish. */
  onModuleDestroy(): Promise<void> {
    clearTimeout(this.startTimer)
    return this.session.shutdown.begin()
  }

  onApplicationShutdown(): Promise<void> {
    return this.session.close()
  }
}

/** Calls the methods of the application for events of one connection. The connection waits for none of them. */
class ConnectionHooks {
  /** All modules are initialized. */
  private hasBegun = false

  constructor(
    private readonly hooks: readonly ConnectionHook[],
    private readonly session: MqttSession,
    private readonly logger: Logger,
  ) {
    if (hooks.length === 0) return
    session.events.connection.listen(({ state, before }) => {
      if (state.status === 'connected') this.call('@OnMqttConnect', state.session)
      if (before.status === 'connected')
        this.call('@OnMqttDisconnect', 'cause' in state ? state.cause : undefined)
    })
    session.events.notice.listen(notice => {
      const { state } = session.connection
      if (notice.type === 'session-lost' && state.status === 'connected')
        this.call('@OnMqttSessionLost', state.session)
    })
  }

  begin(): void {
    this.hasBegun = true
    const { state } = this.session.connection
    if (state.status === 'connected') this.call('@OnMqttConnect', state.session)
  }

  private call(decorator: string, argument: unknown): void {
    if (!this.hasBegun) return
    for (const hook of this.hooks) if (hook.decorator === decorator) void this.run(hook, argument)
  }

  private async run({ name, decorator, call }: ConnectionHook, argument: unknown): Promise<void> {
    try {
      await call(argument)
    } catch (error) {
      this.logger.error(`${name} with ${decorator} failed: ${describeCause(error)}`)
    }
  }
}

/** The providers of a connection, besides its raw options. */
export function providersOf(name: string | undefined): Provider[] {
  const transport = mqttTransportToken(name)
  return [
    { provide: CONNECTION_NAME, useValue: { name } },
    {
      provide: RESOLVED_OPTIONS,
      inject: [MQTT_OPTIONS],
      useFactory: (options: Sealed<MqttModuleOptions>) => resolveOptions(options.reveal()),
    },
    {
      provide: GLOBALS,
      inject: [ApplicationConfig],
      useFactory: (config: ApplicationConfig) => new GlobalEnhancers(config),
    },
    {
      provide: MqttSession,
      inject: [RESOLVED_OPTIONS],
      useFactory: (options: ResolvedOptions) => newSession(options, name),
    },
    {
      provide: mqttServiceToken(name),
      inject: [MqttSession],
      useFactory: (session: MqttSession) => new MqttService(session),
    },
    {
      provide: transport,
      inject: [MqttSession, RESOLVED_OPTIONS, GLOBALS],
      useFactory: (session: MqttSession, options: ResolvedOptions, globals: GlobalEnhancers) =>
        new MqttTransport(session, options, mqttTransportId(name), globals),
    },
    { provide: OWN_TRANSPORT, useExisting: transport },
    {
      provide: mqttClientToken(name),
      inject: [MqttSession, RESOLVED_OPTIONS],
      useFactory: (session: MqttSession, options: ResolvedOptions) =>
        new MqttClientProxy(
          { peer: options.envelope === 'all' ? 'nest' : 'nestjs-mqtt' },
          { session, options },
        ),
    },
  ]
}

/** A connection of an application, as far as its options are known without creating it. */
export interface KnownConnection {
  readonly name: string | undefined
  /** Undefined if they come from a factory that has not run, as in preview mode, or are not valid. */
  readonly options: ResolvedOptions | undefined
}

/** Returns the connections of an application. */
export function connectionsOf(modules: ModulesContainer): KnownConnection[] {
  return [...modules.values()]
    .filter(({ metatype }) => metatype === MqttConnectionModule)
    .map(module => ({
      name: module.getProviderByKey<{ name: string | undefined }>(CONNECTION_NAME)?.instance.name,
      options:
        module.getProviderByKey<ResolvedOptions | null>(RESOLVED_OPTIONS)?.instance ??
        validOptions(module.getProviderByKey<Sealed<MqttModuleOptions> | null>(MQTT_OPTIONS)?.instance),
    }))
}

function validOptions(options: Sealed<MqttModuleOptions> | null | undefined): ResolvedOptions | undefined {
  if (!(options instanceof Sealed)) return undefined
  try {
    return resolveOptions(options.reveal())
  } catch {
    return undefined
  }
}

/** Log context of a connection, with its name. */
function contextOf(context: string, name: string | undefined): string {
  return name === undefined ? context : `${context}:${name}`
}

function newSession(options: ResolvedOptions, name: string | undefined): MqttSession {
  return new MqttSession(options, loggerOf(contextOf('Mqtt', name)))
}
