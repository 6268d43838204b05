import 'reflect-metadata'
import { type INestMicroservice, type LoggerService, Module, type Provider, type Type } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import type { AsyncMicroserviceOptions } from '@nestjs/microservices'
import { MqttModule, type MqttModuleOptions, MqttService } from '../../src/index.js'

/** Keeps what Nest and this package log. */
export class CollectingLogger implements LoggerService {
  readonly lines: string[] = []
  readonly log = this.keep('log')
  readonly error = this.keep('error')
  readonly warn = this.keep('warn')
  readonly debug = (): void => {}

  private keep(level: string) {
    return (text: unknown, ...rest: unknown[]): void => {
      this.lines.push(
        `${level} [${String(rest.at(-1))}] ${text instanceof Error ? text.message : String(text)}`,
      )
    }
  }

  /** What this package logged. */
  get ofMqtt(): string[] {
    return this.lines.filter(line => line.includes('[Mqtt'))
  }
}

export interface AppParts {
  readonly controllers?: Type[]
  readonly providers?: Provider[]
}

export function appModule(options: MqttModuleOptions, { controllers = [], providers = [] }: AppParts): Type {
  @Module({ imports: [MqttModule.forRoot(options)], controllers, providers })
  class AppModule {}
  return AppModule
}

/** A pure microservice that listens. */
export async function startMicroservice(options: MqttModuleOptions, parts: AppParts) {
  const logger = new CollectingLogger()
  const app: INestMicroservice = await NestFactory.createMicroservice<AsyncMicroserviceOptions>(
    appModule(options, parts),
    { ...MqttModule.microservice(), logger, abortOnError: false },
  )
  try {
    await app.listen()
  } catch (error) {
    await app.close()
    throw error
  }
  return { app, logger, mqtt: app.get(MqttService) }
}
