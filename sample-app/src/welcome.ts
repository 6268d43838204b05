import type { ConnectionState } from 'nestjs-mqtt'
import type { Broker } from './broker/broker.js'

export interface WelcomeFacts {
  readonly httpUrl: string
  readonly broker: Broker
  readonly state: ConnectionState
  readonly trucks: number
}

/** Returns the text that the application prints when it is ready: where to look, and commands to try. */
export function welcome({ httpUrl, broker, state, trucks }: WelcomeFacts): string {
  const { protocol, hostname, port, host } = new URL(broker.url)
  const address = `-h ${hostname} -p ${port || '1883'}`
  const version = state.status === 'connected' && state.session.protocolVersion === 5 ? '5' : '3.1.1'
  const kindOfBroker = broker.isEmbedded ? ', embedded; set MQTT_URL=mqtt://… to use your own' : ''
  return `
The fleet is on the road. Open

  ${httpUrl}

  ${trucks} trucks        ${httpUrl}/trucks, ${httpUrl}/alarms
  Health           ${httpUrl}/health
  Metrics          ${httpUrl}/metrics
  AsyncAPI         ${httpUrl}/asyncapi
  Broker           ${protocol}//${host} (MQTT ${version}${kindOfBroker})

In another terminal:

  Watch the alarms   npx mqtt sub ${address} -t 'trucks/+/alarms' -v
  Send a command     curl ${httpUrl}/trucks/truck-5/set-point --json '{"celsius":-25}'

Press Ctrl-C to stop.
`
}
