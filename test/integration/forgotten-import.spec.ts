import 'reflect-metadata'
import { Controller, Inject, Injectable, Module, type ModuleMetadata } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { type AsyncMicroserviceOptions, EventPattern } from '@nestjs/microservices'
import { describe, expect, it } from 'vitest'
import { InjectMqtt, MqttModule, MqttService } from '../../src/index.js'

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

@Controller()
class DevicesController {
  constructor(@Inject(MqttService) readonly mqtt: MqttService) {}

  @EventPattern<string>('devices/+id')
  on(): void {}
}

@Injectable()
class DevicesService {
  constructor(@Inject(MqttService) readonly mqtt: MqttService) {}
}

@Injectable()
class EdgeService {
  constructor(@InjectMqtt('edge') readonly mqtt: MqttService) {}
}

async function errorOfStart(metadata: ModuleMetadata): Promise<unknown> {
  @Module(metadata)
  class AppModule {}
  return NestFactory.create(AppModule, { logger: false, abortOnError: false }).catch(error => error)
}

describe('MqttModule imported without forRoot()', () => {
  const ours = {
    code: 'INVALID_OPTION',
    message:
      'MqttModule is imported without forRoot(); write imports: [MqttModule.forRoot({ url })] in your root module, and remove MqttModule from the imports of other modules, where MqttService can be injected without it',
  }

  it('fails with an error that says what to write', async () => {
    expect(await errorOfStart({ imports: [MqttModule] })).toMatchObject(ours)
  })

  it('fails with the same error if the application injects the service', async () => {
    const parts = { controllers: [DevicesController], providers: [DevicesService] }
    expect(await errorOfStart({ imports: [MqttModule], ...parts })).toMatchObject(ours)
  })

  it('fails with the same error if another module injects the service', async () => {
    @Module({ controllers: [DevicesController], providers: [DevicesService] })
    class FeatureModule {}
    @Module({ imports: [MqttModule] })
    class OtherModule {}
    expect(await errorOfStart({ imports: [FeatureModule, OtherModule] })).toMatchObject(ours)
  })
})

describe('a service injected without MqttModule.forRoot()', () => {
  it('is named in the error of Nest with the import that is missing', async () => {
    const error = await errorOfStart({ controllers: [DevicesController] })
    expect(String(error)).toContain('the argument MqttService of MqttModule.forRoot({ url }) at index [0]')
  })

  it('is named with its connection', async () => {
    const error = await errorOfStart({ providers: [EdgeService] })
    expect(String(error)).toContain(
      'the argument "MqttService of MqttModule.forRoot({ name: \'edge\', url })" at index [0]',
    )
  })
})
