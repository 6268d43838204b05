import * as v from 'valibot'
import { expectTypeOf, it } from 'vitest'
import { defineTopic, type MqttService, type Retained, type RetainedChange } from '../../src/index.js'

declare const mqtt: MqttService

const presence = defineTopic('devices/+deviceId/presence', {
  schema: v.object({ state: v.picklist(['online', 'offline']) }),
})
interface Presence {
  state: 'online' | 'offline'
}

it('has the type that the caller names, or unknown', () => {
  expectTypeOf(mqtt.retained('a/+').get('a/1')).toEqualTypeOf<unknown>()
  expectTypeOf(mqtt.retained<number>('a/+')).toEqualTypeOf<Retained<number>>()
  expectTypeOf(mqtt.retained<number>('a/+').get('a/1')).toEqualTypeOf<number | undefined>()
})

it('has the type of the payload of a contract', () => {
  const devices = mqtt.retained(presence)
  expectTypeOf(devices).toEqualTypeOf<Retained<Presence>>()
  expectTypeOf(devices.changes()).toEqualTypeOf<AsyncIterableIterator<RetainedChange<Presence>>>()
  // @ts-expect-error an option of a handler is no option of a cache
  mqtt.retained(presence, { concurrency: 1 })
})
