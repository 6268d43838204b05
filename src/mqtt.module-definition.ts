import { ConfigurableModuleBuilder } from '@nestjs/common'
import type { MqttModuleOptions } from './options/options.js'

/** What `forRoot` and `forRootAsync` take besides the options of the connection. */
export interface MqttModuleExtras {
  /** Visible in every module without an import. @default true */
  isGlobal?: boolean
  /** Name of the connection, where an application has several. @default none */
  name?: string
}

/** Options as the application gave them; private to each connection's module. */
export const MQTT_OPTIONS = Symbol('nestjs-mqtt:options')

const extras: MqttModuleExtras = { isGlobal: true }

export const { ConfigurableModuleClass, OPTIONS_TYPE, ASYNC_OPTIONS_TYPE } =
  new ConfigurableModuleBuilder<MqttModuleOptions>({ optionsInjectionToken: MQTT_OPTIONS })
    .setClassMethodName('forRoot')
    .setFactoryMethodName('createMqttOptions')
    .setExtras(extras, (definition, { isGlobal }) => ({ ...definition, global: isGlobal ?? true }))
    .build()
