/** Readings of a truck, at QoS 1. */
export const TELEMETRY_TOPIC = 'trucks/+truckId/telemetry'

/** Whether the cargo of a truck is too warm. Retained, so that later subscribers receive the current state. */
export const ALARM_TOPIC = 'trucks/+truckId/alarm'

/** Requests to change the temperature limit. */
export const SET_LIMIT_TOPIC = 'trucks/+truckId/commands/set-limit'
