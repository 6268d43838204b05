import { ConfigurableModuleBuilder } from '@nestjs/common'
import type { MqttModuleOptions } from './options/options.js'

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

export const { ConfigurableModuleClass, OPTIONS_TYPE, ASYNC_OPTIONS_TYPE } =
  new ConfigurableModuleBuilder<MqttModuleOptions>({ optionsInjectionToken: MQTT_OPTIONS })
    .setClassMethodName('forRoot')
    .setFactoryMethodName('createMqttOptions')
    .setExtras(extras, (definition, { isGlobal }) => ({ ...definition, global: isGlobal ?? true }))
    .build()
