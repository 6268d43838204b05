import {
  ConfigurableModuleBuilder,
  type DynamicModule,
  Global,
  type INestApplicationContext,
  type InjectionToken,
  Logger,
  Module,
  type Provider,
} from '@nestjs/common'
import { ModulesContainer } from '@nestjs/core'
import type { AsyncMicroserviceOptions } from '@nestjs/microservices'
import { MqttSession } from './client/mqtt-session.js'
import { MqttError } from './core/errors.js'
import { MQTT_OPTIONS, MqttConnectionModule, providersOf } from './mqtt.connection-module.js'
import { mqttClientToken, mqttServiceToken, mqttTransportId, mqttTransportToken } from './mqtt.service.js'
import type { MqttModuleOptions } from './options/options.js'
import { extrasSchema } from './options/pass-through.js'
import { Sealed } from './options/resolved-options.js'
import { assertReadable, parseOptions } from './options/schema.js'
import { type MqttTransport, PreviewTransport } from './transport/mqtt.transport.js'

/** Options of `forRoot` and `forRootAsync` in addition to those of the connection. */
export interface MqttModuleExtras {
  /** Whether the module is global. @default true */
  isGlobal?: boolean
  /** Name of the connection, if the application has several. @default none */
  name?: string
}

const extras: MqttModuleExtras = { isGlobal: true }

const { ConfigurableModuleClass, OPTIONS_TYPE, ASYNC_OPTIONS_TYPE } =
  new ConfigurableModuleBuilder<MqttModuleOptions>({ optionsInjectionToken: MQTT_OPTIONS })
    .setClassMethodName('forRoot')
    .setFactoryMethodName('createMqttOptions')
    .setExtras(extras, (definition, { isGlobal }) => ({ ...definition, global: isGlobal ?? true }))
    .build()

/** What an application can inject from a connection. */
const tokensOf = (name?: string): InjectionToken[] => [
  mqttServiceToken(name),
  mqttTransportToken(name),
  mqttClientToken(name),
]

/**
 * The connections of the application: see {@link MqttModule.forRoot}. The class itself has none. It is global, so that its
 * error comes before that of Nest wherever the service is injected.
 */
@Global()
@Module({ providers: tokensOf().map(withoutForRoot), exports: tokensOf() })
export class MqttModule extends ConfigurableModuleClass {
  /**
   * Adds one MQTT connection and an injectable `MqttService` to the application. The module is global, unless
   * `isGlobal: false`. For several connections, set a `name` and inject the service with `@InjectMqtt(name)`.
   * @throws MqttError `INVALID_OPTION` if the options are no object that can be read; for all else when the application is created
   */
  static override forRoot(options: typeof OPTIONS_TYPE): DynamicModule {
    checkExtras(options)
    const { name, isGlobal, ...own } = options
    return withConnection(super.forRoot({ ...own, ...(isGlobal === undefined ? {} : { isGlobal }) }), name)
  }

  /** Like `forRoot`, with options from `useFactory`, or from `createMqttOptions()` of `useClass` or `useExisting`. */
  static override forRootAsync(options: typeof ASYNC_OPTIONS_TYPE): DynamicModule {
    checkExtras(options)
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
}

const OWNER = 'MqttModule options'

/** The other options are checked when the application is created. */
function checkExtras(options: MqttModuleExtras): void {
  assertReadable(OWNER, options)
  parseOptions(OWNER, extrasSchema, options)
}

function withConnection(module: DynamicModule, name: string | undefined): DynamicModule {
  return {
    ...module,
    module: MqttConnectionModule,
    providers: [...(module.providers ?? []).map(sealed), ...providersOf(name)],
    exports: tokensOf(name),
  }
}

function withoutForRoot(provide: InjectionToken): Provider {
  return {
    provide,
    useFactory: () => {
      throw new MqttError(
        'INVALID_OPTION',
        'MqttModule is imported without forRoot(); write imports: [MqttModule.forRoot({ url })] in your root module, and remove MqttModule from the imports of other modules, where MqttService can be injected without it',
      )
    },
  }
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

const SAME_SIGNAL_MS = 1_000
/** An HTTP connection in keep-alive ends within 5 s by default. */
const STILL_RUNNING_MS = 10_000

/** Makes `app.close()` drain first, and closes the application on these signals. */
function drainOnClose(app: INestApplicationContext, signals: readonly NodeJS.Signals[]): void {
  // Nest's proxy of the application ignores assignments and looks up methods at each call. So the method of the class is
  // called, and the new one is defined.
  const close: unknown = Reflect.get(Object.getPrototypeOf(app), 'close')
  let closing: Promise<void> | undefined
  const drainThenClose = (signal?: NodeJS.Signals): Promise<void> => {
    closing ??= drainAll(app)
      .then(() => (typeof close === 'function' ? Reflect.apply(close, app, [signal]) : undefined))
      .finally(stopListening)
    return closing
  }
  Object.defineProperty(app, 'close', { configurable: true, value: drainThenClose })
  let firstSignalMs: number | undefined
  const onSignal = (signal: NodeJS.Signals): void => {
    // A terminal and a package manager may both forward one Ctrl-C, so an early second signal is ignored.
    const isImpatient = firstSignalMs !== undefined && performance.now() - firstSignalMs > SAME_SIGNAL_MS
    firstSignalMs ??= performance.now()
    if (isImpatient) {
      stopListening()
      process.kill(process.pid, signal)
      return
    }
    abandonStart(app)
    drainThenClose(signal).then(warnIfAlive, (error: unknown) => {
      new Logger('MqttModule').error(error)
      process.exitCode = 1
    })
  }
  const stopListening = (): void => {
    for (const signal of signals) process.off(signal, onSignal)
  }
  for (const signal of signals) process.on(signal, onSignal)
}

/** Nest's shutdown hooks end the process with the signal. This does not, so a forgotten timer would hold it silently. */
function warnIfAlive(): void {
  const warn = (): void =>
    new Logger('MqttModule').warn(
      'the application has closed, but the process is still running: a timer, a connection or a server is still open; close it in onApplicationShutdown()',
    )
  // It does not keep the process alive itself.
  setTimeout(warn, STILL_RUNNING_MS).unref()
}

/** Without an exit code, Node exits with 13 if a top-level await never settles. */
function abandonStart(app: INestApplicationContext): void {
  for (const session of sessionsOf(app)) session.shutdown.abandonStart()
  process.exitCode ??= 0
}

/** Never rejects, so that the application also closes without a connection or after a failed drain. */
async function drainAll(app: INestApplicationContext): Promise<void> {
  await Promise.allSettled(sessionsOf(app).map(session => session.drain()))
}

/** Finds all connections, whatever their names. Nest throws if there is none, and returns null in preview mode. */
function sessionsOf(app: INestApplicationContext): MqttSession[] {
  try {
    const sessions: (MqttSession | null)[] = app.get(MqttSession, { strict: false, each: true })
    return sessions.filter(session => session !== null)
  } catch {
    return []
  }
}
