import type { PublishPacket } from '../../src/client/connection/link.js'
import { newHandler } from '../../src/client/inbound/delivery.js'
import { MqttSession } from '../../src/client/mqtt-session.js'
import { parseTopicFilter } from '../../src/core/topic/topic-filter.js'
import { resolveOptions } from '../../src/options/option-checks.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import { type PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { RecordingLog } from './recording-log.js'

export const SUBSCRIBE_QOS_1 = { qos: 1, noLocal: false, retainHandling: 0 } as const

/** A session whose broker is a scripted peer. */
export function sessionOnPeer(options: MqttModuleOptions = {}) {
  const peer = new ScriptedPeer()
  const log = new RecordingLog()
  const session = new MqttSession(
    resolveOptions({ createStream: peer.createStream, protocolVersion: 5, keepalive: 0, ...options }),
    log,
  )
  const route = (filter: string, handler: (packet: PublishPacket) => Promise<void>): void => {
    session.addRoute(parseTopicFilter(filter), SUBSCRIBE_QOS_1, newHandler({ name: filter, run: handler }))
  }
  return { peer, log, session, route }
}

export function message(topic: string, fields: Partial<PublishPacket> = {}): PublishPacket {
  return { cmd: 'publish', topic, payload: Buffer.from('x'), qos: 0, dup: false, retain: false, ...fields }
}

/** Closes a session that has subscriptions; its UNSUBSCRIBE gets a response, whatever precedes it. */
export async function closeWith(session: MqttSession, connection: PeerConnection): Promise<void> {
  const closed = session.close()
  const unsubscribe = await connection.find('unsubscribe')
  connection.send({ cmd: 'unsuback', messageId: unsubscribe.messageId ?? 0, granted: [0] })
  await closed
}
