import 'reflect-metadata'
import { Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import type { AsyncMicroserviceOptions } from '@nestjs/microservices'
import { describe, expect, it } from 'vitest'
import { MqttModule } from '../../src/index.js'

@Module({})
class EmptyModule {}

describe('an application that does not import the connection', () => {
  it('fails with an error that says what to import, as a pure microservice', async () => {
    const starting = NestFactory.createMicroservice<AsyncMicroserviceOptions>(EmptyModule, {
      ...MqttModule.microservice(),
      logger: false,
      abortOnError: false,
    })
    await expect(starting.then(app => app.listen())).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message:
        'MqttModule.microservice(): no module of the application imports this connection; add MqttModule.forRoot({ url }) to the imports of your root module',
    })
  })

  it('fails with an error that names the connection, as a hybrid application', async () => {
    const app = await NestFactory.create(EmptyModule, { logger: false, abortOnError: false })
    expect(() => app.connectMicroservice(MqttModule.microservice('edge'))).toThrow(
      'add MqttModule.forRoot({ name: "edge", url }) to the imports',
    )
    await app.close()
  })
})
