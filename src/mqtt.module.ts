import {
  ConfigurableModuleBuilder,
  type DynamicModule,
  type INestApplicationContext,
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
import type { AsyncMicroserviceOptions } from '@nestjs/microservices'
import { MqttSession } from './client/mqtt-session.js'
import { MqttError } from './core/errors.js'
import {
  assertTopicParams,
  findPatternHandlers,
  mqttClientToken,
  mqttServiceToken,
  mqttTransportId,
  mqttTransportToken,
} from './mqtt.decorators.js'
import { drainOnClose } from './mqtt.drain.js'
import { MqttService } from './mqtt.service.js'
import { resolveOptions } from './options/option-checks.js'
import type { MqttModuleOptions } from './options/options.js'
import { type ResolvedOptions, Sealed } from './options/resolved-options.js'
import { loggerOf, MqttClientProxy } from './transport/mqtt.client-proxy.js'
import { GlobalEnhancers } from './transport/mqtt.enhancers.js'
import { MqttTransport, PreviewTransport } from './transport/mqtt.transport.js'

/** Options of `forRoot` and `forRootAsync` in addition to those of the connection. */
export interface MqttModuleExtras {
  /** Whether the module is global. @default true */
  isGlobal?: boolean
  /** Name of the connection, if the application has several. @default none */
  name?: string
}

/** Token of the raw options. Private to the module of each connection. */
export const MQTT_OPTIONS = Symbol('nestjs-mqtt:options')

const extras: MqttModuleExtras = { isGlobal: true }

const { ConfigurableModuleClass, OPTIONS_TYPE, ASYNC_OPTIONS_TYPE } =
  new ConfigurableModuleBuilder<MqttModuleOptions>({ optionsInjectionToken: MQTT_OPTIONS })
    .setClassMethodName('forRoot')
    .setFactoryMethodName('createMqttOptions')
    .setExtras(extras, (definition, { isGlobal }) => ({ ...definition, global: isGlobal ?? true }))
    .build()

const RESOLVED_OPTIONS = Symbol('nestjs-mqtt:resolved-options')
const CONNECTION_NAME = Symbol('nestjs-mqtt:name')
/** The transport of this module, whatever the name of its connection. */
const OWN_TRANSPORT = Symbol('nestjs-mqtt:transport')

const START_GRACE_MS = 10_000

const GLOBALS = Symbol('nestjs-mqtt:globals')

/** One MQTT connection of the application: see {@link MqttModule.forRoot}. */
@Module({})
export class MqttModule
  extends ConfigurableModuleClass
  implements OnModuleInit, OnApplicationBootstrap, OnModuleDestroy, OnApplicationShutdown
{
  private readonly logger: Logger
  private startTimer: NodeJS.Timeout | undefined
  /** Private, so that `util.inspect` does not show the whole application. */
  readonly #modules: ModulesContainer

  constructor(
    @Inject(MqttSession) private readonly session: MqttSession,
    @Inject(OWN_TRANSPORT) private readonly transport: MqttTransport,
    @Inject(CONNECTION_NAME) private readonly connectionName: { readonly name: string | undefined },
    @Inject(ModulesContainer) modules: ModulesContainer,
    @Inject(GLOBALS) private readonly globals: GlobalEnhancers,
  ) {
    super()
    this.logger = new Logger(contextOf('MqttModule', connectionName.name))
    this.#modules = modules
  }

  /**
   * Adds one MQTT connection and an injectable `MqttService` to the application. The module is global, unless
   * `isGlobal: false`. For several connections, set a `name` and inject the service with `@InjectMqtt(name)`.
   * @throws MqttError `INVALID_OPTION`, when the application is created
   */
  static override forRoot(options: typeof OPTIONS_TYPE): DynamicModule {
    const { name, isGlobal, ...own } = options
    return withConnection(super.forRoot({ ...own, ...(isGlobal === undefined ? {} : { isGlobal }) }), name)
  }

  /** Like `forRoot`, with options from `useFactory`, or from `createMqttOptions()` of `useClass` or `useExisting`. */
  static override forRootAsync(options: typeof ASYNC_OPTIONS_TYPE): DynamicModule {
    return withConnection(super.forRootAsync(options), options.name)
  }

  /**
   * Returns the microservice options for Nest, so that it runs the handlers of this connection. Pass them to
   * `NestFactory.createMicroservice(AppModule, MqttModule.microservice())`, or in a hybrid application to
   * `app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })`. The application fails to start with
   * `INVALID_OPTION` if no module imports the connection.
   */
  static microservice(name?: string): AsyncMicroserviceOptions {
    return {
      inject: [ModulesContainer],
      useFactory: (modules: ModulesContainer | null) => ({ strategy: strategyOf(modules, name) }),
    }
  }

  /**
   * Drains the connections before Nest destroys any module of the application. This happens on `app.close()`, and on SIGTERM
   * and SIGINT, which close the application and let the process end with exit code 0. You can publish until all modules are
   * destroyed. If a signal interrupts the start, the promise of `app.listen()` or `app.init()` never settles, so that no
   * later code runs. Without `enableDrain`, the handlers of a hybrid application drain when Nest destroys `MqttModule`.
   * Call it before the application starts, in place of `app.enableShutdownHooks()`.
   */
  static enableDrain(
    app: INestApplicationContext,
    signals: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT'],
  ): void {
    drainOnClose(app, signals)
  }

  /**
   * @throws MqttError `INVALID_OPTION` if two connections have the same name or a `@TopicParam` does not name a wildcard; with
   * `fail-fast`, the cause of the failed start
   */
  async onModuleInit(): Promise<void> {
    const { name } = this.connectionName
    const namesakes = [...this.#modules.values()]
      .filter(module => module.metatype === MqttModule)
      .map(module => module.getProviderByKey<{ name: string | undefined }>(CONNECTION_NAME)?.instance)
      .filter(connection => connection?.name === name)
    if (namesakes.length > 1) {
      const which = name === undefined ? 'without a name' : `named "${name}"`
      throw new MqttError(
        'INVALID_OPTION',
        `MqttModule.forRoot() is imported ${namesakes.length} times ${which}; import it once, or give each connection a name`,
      )
    }
    assertTopicParams(findPatternHandlers(this.#modules, mqttTransportId(name)), pattern =>
      this.transport.wildcardsOf(pattern),
    )
    await this.session.start()
  }

  onApplicationBootstrap(): void {
    this.globals.check()
    if (this.transport.isConnectedToApp) return this.expectStart()
    // Without a transport, nothing else starts the handlers that were added at run time.
    this.session.serve()
    const { name } = this.connectionName
    const names = findPatternHandlers(this.#modules, mqttTransportId(name)).map(handler => handler.name)
    if (names.length === 0) return
    const argument = name === undefined ? '' : JSON.stringify(name)
    this.logger.warn(
      `${names.length} handlers may be for this connection (${names.slice(0, 3).join(', ')}), but no transport runs them. Before the application starts, add: app.connectMicroservice(MqttModule.microservice(${argument}), { inheritAppConfig: true }); await app.startAllMicroservices()`,
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
    return this.session.beginShutdown()
  }

  onApplicationShutdown(): Promise<void> {
    return this.session.close()
  }
}

function withConnection(module: DynamicModule, name: string | undefined): DynamicModule {
  return {
    ...module,
    providers: [...(module.providers ?? []).map(sealed), ...providersOf(name)],
    exports: [mqttServiceToken(name), mqttTransportToken(name), mqttClientToken(name)],
  }
}

function providersOf(name: string | undefined): Provider[] {
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

/** The providers that hold the raw options, which contain passwords and keys. */
function sealed(provider: Provider): Provider {
  if (typeof provider === 'function' || provider.provide !== MQTT_OPTIONS) return provider
  if ('useValue' in provider) return { provide: MQTT_OPTIONS, useValue: new Sealed(provider.useValue) }
  if (!('useFactory' in provider)) return provider
  const { useFactory } = provider
  return {
    ...provider,
    useFactory: async (...dependencies: unknown[]) => new Sealed(await useFactory(...dependencies)),
  }
}

function strategyOf(
  modules: ModulesContainer | null,
  name: string | undefined,
): MqttTransport | PreviewTransport {
  const provider = [...(modules?.values() ?? [])]
    .map(module => module.getProviderByKey<MqttTransport | null>(mqttTransportToken(name)))
    .find(found => found !== undefined)
  if (modules !== null && provider === undefined) {
    const forRoot =
      name === undefined ? 'MqttModule.forRoot({ url })' : `MqttModule.forRoot({ name: "${name}", url })`
    throw new MqttError(
      'INVALID_OPTION',
      `MqttModule.microservice(): no module of the application imports this connection; add ${forRoot} to the imports of your root module`,
    )
  }
  const transport = provider?.instance ?? undefined
  // With `preview: true` Nest creates no instances, but still registers handlers.
  if (transport === undefined) return new PreviewTransport(mqttTransportId(name))
  transport.isConnectedToApp = true
  return transport
}

/** Log context of a connection, with its name. */
function contextOf(context: string, name: string | undefined): string {
  return name === undefined ? context : `${context}:${name}`
}

function newSession(options: ResolvedOptions, name: string | undefined): MqttSession {
  return new MqttSession(options, loggerOf(contextOf('Mqtt', name)))
}
