/** What a truck measures. QoS 1. */
export const TELEMETRY_TOPIC = 'trucks/+truckId/telemetry'

/** Whether the cargo of a truck is too warm. Retained: who subscribes later learns the present state. */
export const ALARM_TOPIC = 'trucks/+truckId/alarm'

/** A request for a new limit. */
export const SET_LIMIT_TOPIC = 'trucks/+truckId/commands/set-limit'
