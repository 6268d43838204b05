import { Controller, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
// biome-ignore lint/style/useImportType: Nest reads the class from the types of the constructor.
import { MqttModule, MqttService } from 'nestjs-mqtt'

@Controller()
class DevicesController {
  constructor(readonly mqtt: MqttService) {}
}

@Module({ imports: [MqttModule], controllers: [DevicesController] })
class WithoutForRoot {}

@Module({ controllers: [DevicesController] })
class WithoutImport {}

describe('an application without MqttModule.forRoot()', () => {
  it.each([
    ['write imports: [MqttModule.forRoot({ url })] in your root module', WithoutForRoot],
    ['the argument MqttService of MqttModule.forRoot({ url }) at index [0]', WithoutImport],
  ])('fails with "%s"', async (text, module) => {
    const starting = NestFactory.create(module, { logger: false, abortOnError: false })
    await expect(starting).rejects.toThrow(text)
  })
})
