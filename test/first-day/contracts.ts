import * as v from 'valibot'
import { defineTopic } from '../../src/client/index.js'

/** What the service and its devices agree on. */
export const telemetry = defineTopic('devices/+deviceId/telemetry', {
  schema: v.object({ celsius: v.number() }),
  qos: 1,
})

export const alarm = defineTopic('devices/+deviceId/alarm', {
  schema: v.object({ celsius: v.number() }),
  qos: 1,
  whenBlocked: 'queue',
})

export const limit = defineTopic('devices/+deviceId/limit', {
  schema: v.object({ celsius: v.number() }),
  qos: 1,
  retain: true,
})

export const calibration = defineTopic('devices/+deviceId/calibration', {
  schema: v.object({ celsius: v.number() }),
  response: v.object({ offset: v.number() }),
})

export const energy = defineTopic('meters/+meterId/energy', {
  schema: v.object({ kWh: v.number() }),
  qos: 1,
})
