import {
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
import { drainOnClose } from './mqtt.drain.js'
import { assertTopicParams, findPatternHandlers } from './mqtt.handler-scan.js'
import {
  type ASYNC_OPTIONS_TYPE,
  ConfigurableModuleClass,
  MQTT_OPTIONS,
  type OPTIONS_TYPE,
} from './mqtt.module-definition.js'
import { MqttService } from './mqtt.service.js'
import { mqttClientToken, mqttServiceToken, mqttTransportId, mqttTransportToken } from './mqtt.tokens.js'
import { resolveOptions } from './options/option-checks.js'
import type { MqttModuleOptions } from './options/options.js'
import type { ResolvedOptions } from './options/resolved-options.js'
import { Sealed } from './options/sealed.js'
import { loggerOf, MqttClientProxy } from './transport/mqtt.client-proxy.js'
import { GlobalEnhancers } from './transport/mqtt.globals.js'
import { PreviewTransport } from './transport/mqtt.preview.js'
import { MqttTransport } from './transport/mqtt.transport.js'

const RESOLVED_OPTIONS = Symbol('nestjs-mqtt:resolved-options')
const CONNECTION_NAME = Symbol('nestjs-mqtt:name')
/** The transport of this module, whatever the connection is called. */
const OWN_TRANSPORT = Symbol('nestjs-mqtt:transport')

const GLOBALS = Symbol('nestjs-mqtt:globals')

/** One MQTT connection of the application: see {@link MqttModule.forRoot}. */
@Module({})
export class MqttModule
  extends ConfigurableModuleClass
  implements OnModuleInit, OnApplicationBootstrap, OnModuleDestroy, OnApplicationShutdown
{
  private readonly logger: Logger
  /** Leads to everything in the application. */
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
   * Gives the application one MQTT connection and an injectable `MqttService`. Global unless `isGlobal: false`.
   * With a `name` it is one of several: inject it by `@InjectMqtt(name)`.
   * @throws MqttError `INVALID_OPTION`, when the application is created
   */
  static override forRoot(options: typeof OPTIONS_TYPE): DynamicModule {
    const { name, isGlobal, ...own } = options
    return withConnection(super.forRoot({ ...own, ...(isGlobal === undefined ? {} : { isGlobal }) }), name)
  }

  /** As `forRoot`, with the options made by `useFactory`, `useClass` (`createMqttOptions()`) or `useExisting`. */
  static override forRootAsync(options: typeof ASYNC_OPTIONS_TYPE): DynamicModule {
    return withConnection(super.forRootAsync(options), options.name)
  }

  /**
   * What Nest takes to run the handlers of this connection: `NestFactory.createMicroservice(AppModule,
   * MqttModule.microservice())`, or `app.connectMicroservice(MqttModule.microservice(), { inheritAppConfig: true })`.
   * Nest throws `INVALID_OPTION` when no module imports the connection.
   */
  static microservice(name?: string): AsyncMicroserviceOptions {
    return {
      inject: [ModulesContainer],
      useFactory: (modules: ModulesContainer | null) => ({ strategy: strategyOf(modules, name) }),
    }
  }

  /**
   * Drains the connections before anything of the application is torn down: on `app.close()`, and on SIGTERM and
   * SIGINT, which then close the application and let the process end by itself with exit code 0. Publishing works until
   * all of it is torn down. A start that such a signal interrupts is abandoned: the promise of `app.listen()` or `app.init()`
   * then never settles, so that nothing behind it runs. Without `enableDrain` the handlers of a hybrid application are
   * drained with its other modules, in the order in which Nest destroys them.
   * Use it in place of `app.enableShutdownHooks()` for these signals, before the application starts.
   */
  static enableDrain(
    app: INestApplicationContext,
    signals: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT'],
  ): void {
    drainOnClose(app, signals)
  }

  /**
   * @throws MqttError `INVALID_OPTION` when two connections have the same name or a `@TopicParam` names no wildcard, or
   * why `fail-fast` failed
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
    if (this.transport.isConnectedToApp) return
    // Nobody will start the handlers that were added at run time.
    this.session.serve()
    const { name } = this.connectionName
    const names = findPatternHandlers(this.#modules, mqttTransportId(name)).map(handler => handler.name)
    if (names.length === 0) return
    const argument = name === undefined ? '' : JSON.stringify(name)
    this.logger.warn(
      `${names.length} handlers may be for this connection (${names.slice(0, 3).join(', ')}), but no transport runs them. Before the application starts, add: app.connectMicroservice(MqttModule.microservice(${argument}), { inheritAppConfig: true }); await app.startAllMicroservices()`,
    )
  }

  /** HTTP handlers may still run, and publish. */
  onModuleDestroy(): Promise<void> {
    return this.session.beginShutdown()
  }

  onApplicationShutdown(): Promise<void> {
    return this.session.close()
  }
}

function withConnection(module: DynamicModule, name: string | undefined): DynamicModule {
  const service = mqttServiceToken(name)
  const transport = mqttTransportToken(name)
  const providers: Provider[] = [
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
      provide: service,
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
  return {
    ...module,
    providers: [...(module.providers ?? []).map(sealed), ...providers],
    exports: [service, transport, mqttClientToken(name)],
  }
}

/** What holds the options as they were given: passwords and keys are among them. */
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
  // With `preview: true` Nest makes no instances, but registers handlers all the same.
  if (transport === undefined) return new PreviewTransport(mqttTransportId(name))
  transport.isConnectedToApp = true
  return transport
}

/** Tells the connections of an application apart in its log. */
function contextOf(context: string, name: string | undefined): string {
  return name === undefined ? context : `${context}:${name}`
}

function newSession(options: ResolvedOptions, name: string | undefined): MqttSession {
  return new MqttSession(options, loggerOf(contextOf('Mqtt', name)))
}
