import type { ConnectionState } from 'nestjs-mqtt'
import type { Broker } from './broker/broker.js'

export interface WelcomeFacts {
  readonly httpUrl: string
  readonly broker: Broker
  readonly state: ConnectionState
  readonly simulate: boolean
}

/** Returns the text that the application prints at startup: addresses, and commands to try. */
export function welcome({ httpUrl, broker, state, simulate }: WelcomeFacts): string {
  const { protocol, hostname, port, host } = new URL(broker.url)
  const address = `-h ${hostname} -p ${port || '1883'}`
  const isMqtt5 = state.status === 'connected' && state.session.protocolVersion === 5
  const truckId = simulate ? 'truck-1' : 'my-truck'
  const setLimit = `${address} -t trucks/${truckId}/commands/set-limit -m '{"limitCelsius":-25}'`
  return `
The fleet is on the road.

  Trucks    ${httpUrl}/trucks
  Health    ${httpUrl}/health
  AsyncAPI  ${httpUrl}/asyncapi
  Broker    ${protocol}//${host}${broker.isEmbedded ? ' (embedded; set MQTT_URL=mqtt://… to use your own)' : ''}
  Drivers   ${simulate ? 'five simulated trucks; the first alarm is raised after about 15 seconds' : 'yours (SIMULATE=true adds five simulated trucks)'}

Try in another terminal:

  Watch the alarms     npx mqtt sub ${address} -t 'trucks/+/alarm' -v
  Act as a truck       npx mqtt pub ${address} -q 1 -t trucks/my-truck/telemetry -m '{"temperatureCelsius":-18}'
  Lower a limit        npx mqtt pub ${setLimit}
${isMqtt5 ? `  … with a response    mosquitto_rr -V 5 ${setLimit} -e replies/me\n` : ''}
Press Ctrl-C to stop.
`
}
