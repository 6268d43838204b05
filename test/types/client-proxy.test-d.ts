import { ClientsModule } from '@nestjs/microservices'
import type { Observable } from 'rxjs'
import { describe, expectTypeOf, it } from 'vitest'
import {
  type MqttClientOptions,
  MqttClientProxy,
  MqttModule,
  type MqttModuleOptions,
  type MqttService,
} from '../../src/index.js'

describe('MqttClientProxy', () => {
  it('is accepted as customClass of ClientsModule with strict checks', () => {
    const module = ClientsModule.register([
      { name: 'DEVICES', customClass: MqttClientProxy, options: { url: 'mqtt://localhost', peer: 'nest' } },
    ])
    expectTypeOf(module).toHaveProperty('module')
  })

  it('takes the QoS of events from the options of the module and of ClientsModule', () => {
    MqttModule.forRoot({ url: 'mqtt://localhost', eventQos: 1 })
    MqttModule.forRootAsync({ useFactory: () => ({ url: 'mqtt://localhost', eventQos: 2 }) })
    ClientsModule.register([
      { name: 'DEVICES', customClass: MqttClientProxy, options: { url: 'mqtt://localhost', eventQos: 1 } },
    ])
    expectTypeOf<MqttModuleOptions['eventQos']>().toEqualTypeOf<0 | 1 | 2 | undefined>()
    expectTypeOf<MqttClientOptions['eventQos']>().toEqualTypeOf<0 | 1 | 2 | undefined>()
    // @ts-expect-error no such QoS
    MqttModule.forRoot({ url: 'mqtt://localhost', eventQos: 3 })
  })

  it('returns the type that the caller names', () => {
    const send = (client: MqttClientProxy) => client.send<{ celsius: number }>('a', 1)
    expectTypeOf(send).returns.toEqualTypeOf<Observable<{ celsius: number }>>()
  })
})

describe('MqttService.request', () => {
  it('returns the type that the caller names', () => {
    const ask = (mqtt: MqttService) => mqtt.request<number>('a', 1)
    expectTypeOf(ask).returns.toEqualTypeOf<Promise<number>>()
    const stream = (mqtt: MqttService) => mqtt.requestStream<number>('a', 1)
    expectTypeOf(stream).returns.toEqualTypeOf<AsyncIterableIterator<number>>()
  })
})
