import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { MessagePattern, Payload } from '@nestjs/microservices'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { builtInClient, ourProxy, ourProxyForBuiltIn, ourStream } from '../support/askers.js'
import { Mosquitto } from '../support/mosquitto.js'
import { startMicroservice } from '../support/nest-app.js'

@Controller()
class GeneratingController {
  @MessagePattern('ask/generated')
  async *generated(@Payload() first: number): AsyncGenerator<number> {
    yield first
    yield first + 1
    yield first + 2
  }
}

let broker: Mosquitto
beforeAll(async () => {
  broker = await Mosquitto.start()
})
afterAll(() => broker.stop())

it.each([
  ['the built-in client', 5 as const, builtInClient],
  ['the built-in client', 4 as const, builtInClient],
  ['MqttClientProxy for a built-in peer', 5 as const, ourProxyForBuiltIn],
  ['MqttClientProxy', 4 as const, ourProxy],
  ['MqttService.requestStream', 4 as const, ourStream()],
])('%s on MQTT version %i receives all values of an async generator', async (_name, protocolVersion, ask) => {
  const { app } = await startMicroservice(
    { url: broker.url, protocolVersion },
    { controllers: [GeneratingController] },
  )
  const asker = await ask(broker.url, protocolVersion)
  expect(await asker.ask('ask/generated', 4)).toEqual({ values: [4, 5, 6], error: undefined })
  await asker.close()
  await app.close()
})
