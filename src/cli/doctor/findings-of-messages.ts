import { describeReasonCode } from '../../core/protocol/packets.js'
import { note, ok, type Rule, type Said, warning } from './finding.js'
import type { Observations, PublishObserved, VersionObserved } from './observations.js'

const DAY_MS = 86_400_000
const SOON_DAYS = 30

const versionText = (observed: VersionObserved): string => {
  if (observed.isAccepted) return 'accepted'
  return observed.code === undefined
    ? `not accepted: ${observed.failure ?? 'no response'}`
    : `refused with ${describeReasonCode(observed.code)}`
}

function mqtt5({ versions: { mqtt5 } }: Observations): Said {
  if (mqtt5.isAccepted) return ok('accepted')
  const options = ['protocolVersion']
  const text = versionText(mqtt5)
  if (mqtt5.code !== undefined || mqtt5.hasHungUp === true)
    return note(
      text,
      `the default protocolVersion "auto" falls back to MQTT 3.1.1 at the first connection; set 4 to skip that attempt. Without MQTT 5 there are no Reason Codes for refusals, no Message Expiry and no User Properties, and requests use Nest's envelope`,
      options,
    )
  return note(
    text,
    'set protocolVersion: 4; "auto" falls back only if the broker refuses MQTT 5 or closes the connection',
    options,
  )
}

function mqtt311({ versions: { mqtt311, mqtt5: other } }: Observations): Said {
  if (mqtt311.isAccepted) return ok('accepted')
  return note(
    versionText(mqtt311),
    other.isAccepted ? 'clients that support only MQTT 3.1.1 cannot connect' : undefined,
  )
}

function tls({ tls: observed, nowMs }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  const { protocol, cipher, subject, chain, validToMs } = observed
  const days = Math.floor((validToMs - nowMs) / DAY_MS)
  const date = new Date(validToMs).toISOString().slice(0, 10)
  const text = `${protocol}, ${cipher}, certificate of "${subject}", chain ${chain.join(' < ')}, valid until ${date} (${days} days)`
  if (days >= SOON_DAYS) return ok(text)
  return warning(
    text,
    'renew the certificate of the broker; clients read "caPath", "certPath" and "keyPath" again before every attempt',
    ['caPath', 'certPath', 'keyPath'],
  )
}

function roundTrip({ roundTrip: observed }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  const { p50Ms, p99Ms, samples } = observed
  return ok(`PINGREQ to PINGRESP: p50 ${p50Ms} ms, p99 ${p99Ms} ms (${samples} samples)`)
}

/** Above the round trip, such a request takes little on a broker that does not hold back packets. */
const SLOW_REQUEST_MS = 20

function requests({ requests: observed, roundTrip: base }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  const { p50Ms, p99Ms, samples } = observed
  const text = `request(), handler and response: p50 ${p50Ms} ms, p99 ${p99Ms} ms (${samples} samples)`
  if (p50Ms < 4 * (base?.p50Ms ?? 0) + SLOW_REQUEST_MS) return ok(text)
  return warning(text, 'see the finding about small packets, and check the load of the broker', [
    'requests.timeoutMs',
  ])
}

/** The delayed acknowledgement of TCP takes at least 40 ms on Linux. */
const HELD_BACK_MS = 25

function smallPackets({ secondPacketMs }: Observations): Said | undefined {
  if (secondPacketMs === undefined) return undefined
  const text = `the second of two small packets arrives ${secondPacketMs} ms after the first one (median)`
  if (secondPacketMs < HELD_BACK_MS) return ok(text)
  return warning(
    `${text}: the broker, or a proxy on the way, uses Nagle's algorithm`,
    'set "set_tcp_nodelay true" in mosquitto.conf, or the equivalent of your broker (RabbitMQ: mqtt.tcp_listen_options.nodelay = true). Until then, keep requests and responses at QoS 0, and requests.ackPings at true',
    ['requests.ackPings', 'requests.responseQos'],
  )
}

const refused = (observed: PublishObserved): string =>
  observed.failure ?? describeReasonCode(observed.code ?? 0)

function qos1({ qos1: observed, deliveredQos }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  if (observed.packet === undefined || (observed.code ?? 0) >= 0x80)
    return warning(`a QoS 1 publish was not acknowledged: ${refused(observed)}`, 'publish at QoS 0', ['qos'])
  if (deliveredQos?.one === 1) return ok('acknowledged, and delivered at QoS 1')
  return warning(
    deliveredQos?.one === undefined
      ? 'acknowledged, but not delivered to a subscription of QoS 1'
      : `acknowledged, but delivered at QoS ${deliveredQos.one}`,
    'the broker does not deliver such a message again; do not rely on redelivery after a failure',
    ['qos'],
  )
}

const AT_MOST_1 = 'publish and subscribe at QoS 1, and let handlers recognise repeats with "dedupe"'

function qos2({ qos2: observed, deliveredQos, connack }: Observations): Said | undefined {
  if (connack.maximumQoS !== undefined && connack.maximumQoS < 2)
    return note(
      `the broker announces Maximum QoS ${connack.maximumQoS}`,
      `${AT_MOST_1}; publish() rejects a higher QoS with QOS_NOT_SUPPORTED`,
      ['qos', 'dedupe'],
    )
  if (observed === undefined) return undefined
  if (observed.packet === 'puback')
    return warning(
      'the broker acknowledges a QoS 2 publish with PUBACK, as if it were QoS 1',
      `this client accepts that, but the message can arrive twice: ${AT_MOST_1}`,
      ['qos', 'dedupe'],
    )
  if (observed.packet !== 'pubcomp' || (observed.code ?? 0) >= 0x80)
    return warning(`a QoS 2 publish failed: ${refused(observed)}`, AT_MOST_1, ['qos', 'dedupe'])
  if (deliveredQos?.two === 2) return ok('PUBREC and PUBCOMP, and delivered at QoS 2')
  return note(
    deliveredQos?.two === undefined
      ? 'PUBREC and PUBCOMP, but not delivered to a subscription of QoS 2'
      : `PUBREC and PUBCOMP, but delivered at QoS ${deliveredQos.two}`,
    AT_MOST_1,
    ['qos', 'dedupe'],
  )
}

function withoutSubscriber({ withoutSubscriber: observed, protocolVersion }: Observations): Said | undefined {
  if (observed?.packet === undefined) return undefined
  if (observed.code === 0x10) return ok('PUBACK reports 0x10 No matching subscribers')
  const version = protocolVersion === 5 ? '' : ' (MQTT 3.1.1 has no such code)'
  return note(
    `PUBACK does not report that nobody subscribes to the topic${version}`,
    'a request without a responder fails with TIMEOUT instead of NO_RESPONDER; choose the timeout accordingly',
    ['requests.timeoutMs'],
  )
}

function packetSize({ connack, largePublish, versions }: Observations): Said | undefined {
  const { maximumPacketSize } = connack
  const options = ['inbound.maxPacketBytes']
  if (maximumPacketSize !== undefined)
    return note(
      `the broker accepts packets of up to ${maximumPacketSize} bytes`,
      'publish() rejects larger ones with PACKET_TOO_LARGE',
    )
  if (largePublish === undefined) return undefined
  if (largePublish.packet !== undefined && (largePublish.code ?? 0) < 0x80)
    return ok(`no limit announced; ${largePublish.bytes} bytes were accepted`, options)
  const why = versions.mqtt5.isAccepted
    ? 'although it announces no limit'
    : 'and MQTT 3.1.1 has no limit to announce'
  return warning(
    `a publish of ${largePublish.bytes} bytes failed, ${why}: ${refused(largePublish)}`,
    'keep payloads small, or raise the limit of the broker',
  )
}

function topicAlias({ topicAlias: observed, connack }: Observations): Said | undefined {
  const maximum = connack.topicAliasMaximum ?? 0
  const options = ['outbound.topicAlias']
  if (maximum === 0)
    return note('the broker accepts no Topic Alias', 'nothing to do: the client sends none', options)
  if (observed === undefined) return undefined
  if (observed.hasArrived) return ok(`${maximum} aliases are accepted, and used by the client`, options)
  return warning(
    `the broker announces ${maximum} aliases, but a message with one did not arrive`,
    'set outbound.topicAlias: false',
    options,
  )
}

function messageExpiry({ messageExpiry: observed }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  const { sent, received, waitedMs, isExpiredGone } = observed
  const advice =
    'do not rely on the broker to remove old messages: put a time into the payload, and check it in the handler'
  if (!isExpiredGone) return warning('a retained message was delivered after it had expired', advice)
  if (received === undefined)
    return warning('expired messages are removed, but the interval does not reach the subscriber', advice)
  if (received < sent) return ok(`counted down: ${sent} s became ${received} s after ${waitedMs} ms`)
  return warning(`not counted down: still ${received} s after ${waitedMs} ms`, advice)
}

function userProperties({ userProperties: observed }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  if (observed.isKept && observed.isOrdered) return ok('forwarded in order')
  return warning(
    observed.isKept ? 'forwarded, but in a different order' : 'not forwarded unchanged',
    'trace contexts and message ids do not reach the handler; put them into the payload',
  )
}

function ownPacketLimit({ ownPacketLimit: observed }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  const { limit, hasArrived, isAlive } = observed
  const options = ['inbound.maxPacketBytes']
  if (hasArrived)
    return warning(
      `a packet larger than the Maximum Packet Size of the client (${limit} bytes) was delivered`,
      'the client closes the connection with 0x95 when that happens; set inbound.maxPacketBytes higher than the size of your largest message',
      options,
    )
  if (isAlive) return ok('packets that are too large for the client are not delivered', options)
  return note('nothing was delivered after a packet that is too large for the client', undefined, options)
}

export const MESSAGE_RULES: readonly Rule[] = [
  { id: 'mqtt-5', title: 'MQTT 5', check: 'connect', decide: mqtt5 },
  { id: 'mqtt-3.1.1', title: 'MQTT 3.1.1', check: 'connect', decide: mqtt311 },
  { id: 'tls', title: 'TLS', check: 'tls', decide: tls },
  { id: 'round-trip', title: 'Round trip', check: 'roundTrip', decide: roundTrip },
  { id: 'requests', title: 'Requests', check: 'requests', decide: requests },
  { id: 'small-packets', title: 'Small packets', check: 'secondPacket', decide: smallPackets },
  { id: 'qos-1', title: 'QoS 1', check: 'qos1', decide: qos1 },
  { id: 'qos-2', title: 'QoS 2', check: 'qos2', decide: qos2 },
  { id: 'no-subscriber', title: 'No subscriber', check: 'qos1', decide: withoutSubscriber },
  { id: 'packet-size', title: 'Maximum Packet Size', check: 'largePublish', decide: packetSize },
  {
    id: 'own-packet-size',
    title: 'Client packet size',
    check: 'ownPacketLimit',
    isMqtt5: true,
    decide: ownPacketLimit,
  },
  { id: 'topic-alias', title: 'Topic Alias', check: 'topicAlias', isMqtt5: true, decide: topicAlias },
  {
    id: 'message-expiry',
    title: 'Message Expiry',
    check: 'messageExpiry',
    isMqtt5: true,
    decide: messageExpiry,
  },
  {
    id: 'user-properties',
    title: 'User Properties',
    check: 'userProperties',
    isMqtt5: true,
    decide: userProperties,
  },
]
