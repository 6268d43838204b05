import {
  ConfigurableModuleBuilder,
  type DynamicModule,
  Global,
  type INestApplicationContext,
  type InjectionToken,
  Module,
  type Provider,
} from '@nestjs/common'
import { ModulesContainer } from '@nestjs/core'
import type { AsyncMicroserviceOptions } from '@nestjs/microservices'
import { MqttError } from './core/errors.js'
import { MQTT_OPTIONS, MqttConnectionModule, providersOf } from './mqtt.connection-module.js'
import { mqttClientToken, mqttServiceToken, mqttTransportId, mqttTransportToken } from './mqtt.decorators.js'
import { drainOnClose } from './mqtt.drain.js'
import type { MqttModuleOptions } from './options/options.js'
import { Sealed } from './options/resolved-options.js'
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
