import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MqttClient } from '../../src/client/index.js'
import {
  type Asker,
  builtInClient,
  ourProxy,
  ourProxyForBuiltIn,
  ourRequest,
  ourStream,
  VERSIONS,
} from '../support/askers.js'
import { Mosquitto } from '../support/mosquitto.js'

let broker: Mosquitto
beforeAll(async () => {
  broker = await Mosquitto.start()
})
afterAll(() => broker.stop())

const REQUESTERS = [
  { name: 'MqttService.request', connect: ourRequest, receivesLast: true },
  { name: 'MqttService.requestStream', connect: ourStream(), receivesLast: false },
  { name: 'MqttClientProxy', connect: ourProxy, receivesLast: false },
  { name: 'MqttClientProxy for a built-in peer', connect: ourProxyForBuiltIn, receivesLast: false },
  { name: 'the built-in client', connect: builtInClient, receivesLast: false },
]
const PAIRINGS = VERSIONS.flatMap(version =>
  VERSIONS.flatMap(deviceVersion => {
    // Without MQTT 5 on both sides there is no Response Topic, so the requester must use the envelope.
    const canTalk = (name: string) => deviceVersion === version || /built-in/.test(name)
    return REQUESTERS.filter(({ name }) => canTalk(name)).map(requester => ({
      ...requester,
      version,
      deviceVersion,
    }))
  }),
)

describe.each(PAIRINGS)(
  '$name on MQTT version $version requests a device on version $deviceVersion',
  ({ connect, version, deviceVersion, receivesLast }) => {
    let device: MqttClient
    let requester: Asker
    beforeAll(async () => {
      device = await MqttClient.connect({ url: broker.url, protocolVersion: deviceVersion })
      const handlers = [
        device.respond('devices/+id/status', ({ params, payload }) => ({ id: params['id'], asked: payload })),
        device.respond<number>('devices/7/count', async function* ({ payload }) {
          for (let value = 1; value <= payload; value += 1) yield value
        }),
        device.respond('devices/7/valve', () => {
          throw Object.assign(new Error('the valve is stuck'), { code: 'EVALVE' })
        }),
      ]
      await Promise.all(handlers.map(handler => handler.whenGranted()))
      requester = await connect(broker.url, version)
    })
    afterAll(async () => {
      await requester.close()
      await device.close()
    })

    it('and receives a single value', async () => {
      const values = [{ id: '7', asked: { verbose: true } }]
      const received = await requester.ask('devices/7/status', { verbose: true })
      expect(received).toEqual({ values, error: undefined })
    })

    it('and receives a stream', async () => {
      const values = receivesLast ? [3] : [1, 2, 3]
      expect(await requester.ask('devices/7/count', 3)).toEqual({ values, error: undefined })
    })

    it('and receives an error', async () => {
      const error = { status: 'error', message: 'the valve is stuck', code: 'EVALVE' }
      expect(await requester.ask('devices/7/valve', {})).toEqual({ values: [], error })
    })
  },
)
