import type { MqttSession } from '../../src/client/mqtt-session.js'

/** How many listen to the connection of a session. */
export function listenersOf({ connection }: MqttSession): number {
  const parts: unknown = Reflect.get(connection, 'parts')
  const observers: unknown = Reflect.get(connection, 'observers')
  if (!Array.isArray(parts) || !(observers instanceof Set)) throw new Error('the connection has no listeners')
  return parts.length + observers.size
}
