import { isMqttError, type MqttError, type PublishPacket, type PublishProperties } from '../../src/index.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { type PublisherOnPeer, pass } from './publisher-on-peer.js'
import { message } from './session-on-peer.js'

/** What became of a request so far. */
export class Asked {
  state: 'open' | 'responded' | 'failed' = 'open'
  value: unknown
  error: MqttError | undefined

  constructor(request: Promise<unknown>) {
    request.then(
      value => {
        this.state = 'responded'
        this.value = value
      },
      (error: unknown) => {
        this.state = 'failed'
        if (isMqttError(error)) this.error = error
      },
    )
  }

  get code(): string | undefined {
    return this.error?.code
  }
}

/** Lets everything happen that is a matter of a moment: longer than packets are held. */
export const moment = () => pass(3, 1)

interface Reply {
  /** Encoded as JSON, unless it is a Buffer. */
  readonly value?: unknown
  readonly status?: string
  readonly properties?: PublishProperties
}

/** The packet with which a responder responds to a request of MQTT 5. */
export function responseTo(
  request: Pick<PublishPacket, 'properties'>,
  { value, status, properties }: Reply,
): PublishPacket {
  const { responseTopic = '', correlationData = Buffer.alloc(0) } = request.properties ?? {}
  const payload = Buffer.isBuffer(value)
    ? value
    : Buffer.from(value === undefined ? '' : JSON.stringify(value))
  return message(responseTopic, {
    payload,
    properties: {
      correlationData,
      ...(status === undefined ? {} : { userProperties: { status } }),
      ...properties,
    },
  })
}

/** Packets of one kind that arrived so far. */
export function publishesOf(connection: PeerConnection) {
  return connection.received.flatMap(packet => (packet.cmd === 'publish' ? [packet] : []))
}

export function subscribesOf(connection: PeerConnection): string[] {
  return connection.received.flatMap(packet =>
    packet.cmd === 'subscribe' ? packet.subscriptions.map(({ topic }) => topic) : [],
  )
}

/** Makes the first request, whose subscription the broker grants, and gives it as the broker got it. */
export async function firstRequest({ mqtt, connection }: PublisherOnPeer, payload: unknown = 1) {
  const asked = new Asked(mqtt.request('ask', payload))
  await connection.grant()
  const request = await connection.expect('publish')
  return { asked, request }
}
