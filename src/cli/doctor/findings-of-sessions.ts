import { counted } from '../../core/log-lines.js'
import { describeReasonCode } from '../../core/protocol/packets.js'
import { note, ok, type Rule, type Said, warning } from './finding.js'
import type { Observations } from './observations.js'

const NEVER = 0xffff_ffff

function session({ session: observed, protocolVersion }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  const options = ['clean', 'clientId', 'properties.sessionExpiryInterval']
  if (!observed.sessionPresent)
    return warning(
      'not kept across a reconnect',
      'with clean: false, messages that are published during an outage do not arrive',
      options,
    )
  if (!observed.hasQueued)
    return warning(
      'kept across a reconnect, but a QoS 1 message published in between did not arrive',
      'check the queue limits of the broker for clients that are offline',
      options,
    )
  const { requestedExpiry, grantedExpiry } = observed
  const text = 'kept across a reconnect, with the messages published in between'
  if (protocolVersion === 4)
    return note(
      `${text}; the broker decides when it expires`,
      'check the setting of the broker, such as persistent_client_expiration of mosquitto',
      options,
    )
  if (grantedExpiry === undefined || grantedExpiry === requestedExpiry || grantedExpiry === NEVER)
    return ok(text, options)
  return note(
    `${text}; instead of the ${requestedExpiry} s requested, the session ends after ${grantedExpiry} s`,
    undefined,
    options,
  )
}

function redelivery({ session: observed }: Observations): Said | undefined {
  if (observed?.sessionPresent !== true) return undefined
  if (observed.redeliveredDup === true) return ok('an unacknowledged message arrives again, with DUP')
  if (observed.redeliveredDup === undefined)
    return note(
      `a message that was not acknowledged did not arrive again within ${observed.quietMs} ms after the reconnect`,
      'some brokers deliver it again only after a time limit (NATS: ack_wait, 30 s), and later messages overtake it',
      ['clean'],
    )
  return note(
    'an unacknowledged message arrives again, but without DUP',
    'handlers cannot rely on the flag; recognise repeats with "dedupe"',
    ['dedupe'],
  )
}

const WINDOW_OPTIONS = ['inbound.maxInFlight', 'inbound.maxQueuedBytes']

function receiveMaximum({ receiveMaximum: observed }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  const { limit, before, after, published } = observed
  const most = Math.max(before, after)
  if (most === 1)
    return warning(
      'the broker sends one message at a time, and waits for its acknowledgement',
      'a slow handler, a retry or a dead letter delays every other QoS 1 message of the connection: subscribe at QoS 0 where a loss is acceptable, or use several connections',
      ['qos', ...WINDOW_OPTIONS],
    )
  if (limit === undefined) return unlimited(most, published)
  if (most > limit)
    return warning(
      `overrun${before > limit ? '' : ' after the first acknowledgements'}: ${most} unacknowledged messages where the client allows ${limit}`,
      'update the broker if a later version respects the limit (mosquitto: 2.0.13); the client limits its memory with inbound.maxQueuedBytes, and stops reading when that is reached',
      WINDOW_OPTIONS,
    )
  if (most < limit)
    return note(
      `respected, but the broker sends only ${most} messages without waiting for an acknowledgement`,
      'raise the limit of the broker, such as max_inflight_messages of mosquitto',
      WINDOW_OPTIONS,
    )
  return ok(`respected: ${most} unacknowledged messages where the client allows ${limit}`, WINDOW_OPTIONS)
}

function unlimited(most: number, published: number): Said {
  const text = 'MQTT 3.1.1 has no Receive Maximum; the broker sends'
  if (most >= published)
    return note(
      `${text} at least ${most} messages without waiting for an acknowledgement`,
      'the client limits its memory with inbound.maxQueuedBytes, and stops reading when that is reached',
      WINDOW_OPTIONS,
    )
  return note(
    `${text} up to ${most} messages without waiting for an acknowledgement`,
    'if that many messages wait for their handlers or for retries, the broker sends no more; raise the limit of the broker, such as max_inflight_messages of mosquitto or mqtt.prefetch of RabbitMQ',
    WINDOW_OPTIONS,
  )
}

function brokerWindow({ connack, protocolVersion }: Observations): Said {
  const options = ['outbound.maxInFlight']
  if (protocolVersion === 4)
    return note(
      'MQTT 3.1.1 brokers announce no limit for publishes in flight',
      'set outbound.maxInFlight to the limit of the broker, if it has one',
      options,
    )
  const { receiveMaximum: maximum = 65_535 } = connack
  if (maximum >= 1_000)
    return ok(
      `${maximum} publishes in flight are accepted; the client uses up to outbound.maxInFlight`,
      options,
    )
  return note(
    `the broker accepts ${maximum} publishes in flight, and the client stays within this limit`,
    '"whenBlocked" decides what happens to further publishes; raise the limit of the broker (such as max_inflight_messages of mosquitto) for more throughput',
    [...options, 'whenBlocked'],
  )
}

function keepAlive({ connack, protocolVersion, requestedKeepAlive }: Observations): Said | undefined {
  if (protocolVersion !== 5) return undefined
  // Some brokers send back what the client has requested.
  const { serverKeepAlive = requestedKeepAlive } = connack
  if (serverKeepAlive === requestedKeepAlive)
    return ok('the broker accepts the value of the client', ['keepalive'])
  return note(
    `the broker sets Keep Alive to ${serverKeepAlive} s instead of the ${requestedKeepAlive} s requested`,
    'nothing to do: the client uses it',
    ['keepalive'],
  )
}

function will({ will: observed }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  if (observed.hasArrived) return ok('published when the connection was lost', ['will', 'presence'])
  return warning(
    'not published within 3 s after the connection was lost',
    'do not rely on presence to notice a lost client; publish heartbeats',
    ['will', 'presence'],
  )
}

function sysTopics({ sysTopics: observed, brokerVersion }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  const { code, topics, quietMs } = observed
  if (code === undefined || code >= 0x80)
    return note(
      `a subscription to $SYS/# was refused: ${code === undefined ? 'no SUBACK' : describeReasonCode(code)}`,
    )
  if (topics === 0)
    return note(`$SYS/# delivers nothing within ${quietMs} ms`, 'monitor the broker with its own tools')
  const version = brokerVersion === undefined ? '' : `, version "${brokerVersion}"`
  return note(
    `readable: ${counted(topics, 'topic')}${version}`,
    'if other clients must not see them, deny $SYS/# in the access rules of the broker',
  )
}

export const SESSION_RULES: readonly Rule[] = [
  { id: 'session', title: 'Session', check: 'session', decide: session },
  { id: 'redelivery', title: 'Redelivery', check: 'session', decide: redelivery },
  { id: 'receive-maximum', title: 'Receive Maximum', check: 'receiveMaximum', decide: receiveMaximum },
  { id: 'broker-window', title: 'Publishes in flight', check: 'connect', decide: brokerWindow },
  { id: 'keep-alive', title: 'Keep Alive', check: 'connect', isMqtt5: true, decide: keepAlive },
  { id: 'will', title: 'Will', check: 'will', decide: will },
  { id: 'sys-topics', title: '$SYS', check: 'sysTopics', decide: sysTopics },
]
