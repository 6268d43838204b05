import type { Duplex } from 'node:stream'
import { type IPublishPacket, type Packet, parser } from 'mqtt-packet'

/**
 * Observes the bytes that the broker reads from a stream with `read()`, and reports each QoS 1 and 2 message that the client
 * acknowledges.
 */
export function tapAcknowledgements(stream: Duplex, acknowledged: (packet: IPublishPacket) => void): void {
  const sent = new Map<number | undefined, IPublishPacket>()
  const toBroker = parsing(packet => {
    if (packet.cmd !== 'puback' && packet.cmd !== 'pubcomp') return
    const publish = sent.get(packet.messageId)
    if (publish === undefined) return
    sent.delete(packet.messageId)
    acknowledged(publish)
  })
  const toClient = parsing(packet => {
    if (packet.cmd === 'publish' && packet.qos > 0) sent.set(packet.messageId, packet)
  })
  const read = stream.read.bind(stream)
  const { write } = stream
  Object.assign(stream, {
    read(size?: number): unknown {
      const chunk: unknown = read(size)
      if (chunk instanceof Uint8Array) toBroker(chunk)
      return chunk
    },
    write(chunk: unknown, ...rest: unknown[]): boolean {
      if (chunk instanceof Uint8Array || typeof chunk === 'string') toClient(chunk)
      return Boolean(Reflect.apply(write, stream, [chunk, ...rest]))
    },
  })
}

function parsing(onPacket: (packet: Packet) => void): (chunk: Uint8Array | string) => void {
  const packets = parser()
  packets.on('packet', onPacket)
  // The broker itself ends a connection that does not send MQTT.
  packets.on('error', () => {})
  return chunk => packets.parse(Buffer.from(chunk))
}
