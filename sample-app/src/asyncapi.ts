import { defineTopic } from 'nestjs-mqtt'
import type { AsyncApiOptions } from 'nestjs-mqtt/asyncapi'
import { ALARM_TOPIC } from './topics.js'

/** What the document says besides the handlers. */
export const asyncApi: AsyncApiOptions = {
  title: 'Refrigerated trucks',
  version: '0.1.0',
  description: 'Records the temperature of trucks, and raises an alarm when the cargo is too warm.',
  sends: [
    defineTopic(ALARM_TOPIC, {
      description: 'Whether the cargo of a truck is too warm.',
      qos: 1,
      retain: true,
    }),
  ],
}
