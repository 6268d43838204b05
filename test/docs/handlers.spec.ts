import 'reflect-metadata'
import type { INestMicroservice, Type } from '@nestjs/common'
import { Test } from '@nestjs/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { CollectingLogger } from '../support/nest-app.js'
import { DocApp } from './doc-app.js'

/** The modules of the page use the built package. */
interface Package {
  readonly MqttModule: {
    forRoot(options: object): Type
    microservice(): object
  }
  readonly MqttService: Type<{ request(topic: string, payload: unknown): Promise<unknown> }>
}

/** The page imports this name, which is the built package. */
const BUILT = 'nestjs-mqtt'

describe('the services of docs/handlers.md', () => {
  const page = new DocApp('docs/handlers.md', 'module')
  let broker: EmbeddedBroker
  let app: INestMicroservice
  let mqtt: Package
  const services: Record<string, Type> = {}

  beforeAll(async () => {
    page.write()
    await page.compile()
    for (const name of ['doors', 'freezers', 'meters', 'unmatched', 'watch'])
      Object.assign(services, await import(page.compiled(`src/${name}.service.ts`)))
    mqtt = await import(BUILT)
    broker = await EmbeddedBroker.start()
    const module = await Test.createTestingModule({
      imports: [mqtt.MqttModule.forRoot({ url: broker.url })],
      providers: Object.values(services),
    })
      .setLogger(new CollectingLogger())
      .compile()
    app = module.createNestMicroservice(mqtt.MqttModule.microservice())
    await app.listen()
  })

  afterAll(async () => {
    await app.close()
    await broker.stop()
  })

  const service = (name: string) => app.get(services[name] ?? name)

  it('handle events and requests on a provider', async () => {
    await broker.deliver('doors/front/state', 'open')
    await broker.deliver('doors/back/state', 'closed')
    expect(await app.get(mqtt.MqttService).request('doors/open', null)).toEqual({
      front: 'doors/front/state, retained: false, trace: none',
    })
  })

  it('handle events and requests of a contract', async () => {
    await broker.deliver('freezers/1/temperature', { celsius: -18 })
    const service = app.get(mqtt.MqttService)
    expect(await service.request('freezers/1/defrost', { minutes: 5 })).toEqual({ accepted: true })
    await expect(service.request('freezers/1/defrost', { minutes: 'five' })).rejects.toThrow('minutes')
  })

  it('handle a batch', async () => {
    const delivered = [1, 2].map(kWh => broker.deliver(`meters/${kWh}/reading`, { kWh }))
    await Promise.all(delivered)
    expect(service('MetersService').rows).toEqual([
      ['1', 1],
      ['2', 2],
    ])
  })

  it('follow the connection', () => {
    expect(service('WatchService').log).toEqual(['connected with MQTT version 4'])
  })
})
