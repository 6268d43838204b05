import type { Examination } from './examination.js'
import { RESPONSE_MS } from './examination.js'
import type { Observations, TimesObserved } from './observations.js'
import { Interrupted, type RawConnection } from './raw-connection.js'

export type Observed = Partial<Observations>

const PINGS = 60
const PAIRS = 15
/** After this many packets, the kernel no longer acknowledges each one at once. */
const WARM_UP = 40
/** Below the limit of every broker that is known to have one by default, except AWS IoT Core (131,072 bytes). */
const LARGE_BYTES = 262_144

/** Sends PINGREQ one after the other. */
export async function roundTrip(examination: Examination): Promise<Observed> {
  return examination.using({}, async raw => {
    const times: number[] = []
    for (let count = 0; count < PINGS; count += 1) {
      const sentMs = performance.now()
      raw.send({ cmd: 'pingreq' })
      const response = await raw.timed('pingresp', () => true, RESPONSE_MS)
      if (response === undefined) throw new Interrupted(raw.whyEnded ?? 'no response to PINGREQ')
      times.push(response.atMs - sentMs)
    }
    const observed = timesOf(times)
    // Everything that is said not to arrive is waited for this long.
    examination.quietMs = Math.min(2_000, Math.max(250, 4 * observed.p99Ms))
    return { roundTrip: observed }
  })
}

export function timesOf(times: readonly number[]): TimesObserved {
  const sorted = times.toSorted((a, b) => a - b)
  const at = (part: number): number =>
    Number((sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? 0).toFixed(2))
  return { p50Ms: at(0.5), p99Ms: at(0.99), samples: sorted.length }
}

/**
 * The broker has two small packets to send at about the same time: PINGRESP and a message, or a message and PUBACK. With
 * Nagle's algorithm it keeps the second one until TCP has acknowledged the first one, which takes the kernel of this machine
 * about 40 ms.
 */
export async function secondPacket(examination: Examination): Promise<Observed> {
  const topic = examination.topic('pair')
  return examination.using({}, async raw => {
    await subscribed(raw, topic, 0)
    const afterPing: number[] = []
    const withPuback: number[] = []
    for (let count = 0; count < WARM_UP; count += 1) {
      raw.send({ cmd: 'pingreq' })
      await raw.take('pingresp', () => true, RESPONSE_MS)
    }
    for (let count = 0; count < PAIRS; count += 1) {
      afterPing.push(await pair(raw, topic, true))
      withPuback.push(await pair(raw, topic, false))
    }
    const median = Math.max(timesOf(afterPing).p50Ms, timesOf(withPuback).p50Ms)
    return { secondPacketMs: median }
  })
}

/** @returns time between the two packets that the broker sends */
async function pair(raw: RawConnection, topic: string, isPing: boolean): Promise<number> {
  const message = { cmd: 'publish', topic, payload: 'pair', dup: false, retain: false } as const
  const messageId = raw.nextId()
  if (isPing) raw.send({ cmd: 'pingreq' }, { ...message, qos: 0 })
  else raw.send({ ...message, qos: 1, messageId })
  const [one, other] = await Promise.all([
    raw.timed('publish', packet => packet.topic === topic, RESPONSE_MS),
    isPing
      ? raw.timed('pingresp', () => true, RESPONSE_MS)
      : raw.timed('puback', packet => packet.messageId === messageId, RESPONSE_MS),
  ])
  if (one === undefined || other === undefined)
    throw new Interrupted(raw.whyEnded ?? 'a message did not arrive')
  return Math.abs(one.atMs - other.atMs)
}

/** @throws Interrupted if the subscription is not granted */
export async function subscribed(raw: RawConnection, topic: string, qos: 0 | 1 | 2): Promise<void> {
  const [code] = (await raw.subscribe([{ topic, qos }], RESPONSE_MS)) ?? []
  if (code === undefined) throw new Interrupted(raw.whyEnded ?? 'no SUBACK')
  if (code >= 0x80)
    throw new Interrupted(
      `the broker refused a subscription below ${topic}; choose topics that this client may use with --prefix`,
    )
}

export async function qos1(examination: Examination): Promise<Observed> {
  return examination.using({}, async raw => {
    const topic = examination.topic('qos1')
    const withoutSubscriber = await raw.publish({ topic, payload: 'x', qos: 1 }, RESPONSE_MS)
    await subscribed(raw, topic, 1)
    const acknowledged = await raw.publish({ topic, payload: 'x', qos: 1 }, RESPONSE_MS)
    const arrived = await raw.take('publish', packet => packet.topic === topic, RESPONSE_MS)
    return {
      withoutSubscriber,
      qos1: acknowledged,
      deliveredQos: { one: arrived?.qos, two: undefined },
    }
  })
}

/** A broker that does not support QoS 2 may close the connection, so that this check has its own. */
export async function qos2(examination: Examination, before: Observed): Promise<Observed> {
  const { deliveredQos, connack } = before
  if (connack?.maximumQoS !== undefined && connack.maximumQoS < 2) return {}
  const topic = examination.topic('qos2')
  const observed = await examination.using({}, raw =>
    raw.publish({ topic, payload: 'x', qos: 2 }, RESPONSE_MS),
  )
  if (observed.packet === undefined) return { qos2: observed }
  return examination.using({}, async raw => {
    await subscribed(raw, topic, 2)
    await raw.publish({ topic, payload: 'x', qos: 2 }, RESPONSE_MS)
    const arrived = await raw.take('publish', packet => packet.topic === topic, RESPONSE_MS)
    // Its flow must end before the connection does.
    if (arrived?.qos === 2)
      await raw.take('pubrel', packet => packet.messageId === arrived.messageId, RESPONSE_MS)
    return { qos2: observed, deliveredQos: { one: deliveredQos?.one, two: arrived?.qos } }
  })
}

export async function largePublish(examination: Examination, { connack }: Observed): Promise<Observed> {
  const maximum = connack?.maximumPacketSize ?? Number.POSITIVE_INFINITY
  if (maximum < LARGE_BYTES + 200) return {}
  return examination.using({}, async raw => {
    const message = { topic: examination.topic('large'), payload: Buffer.alloc(LARGE_BYTES), qos: 1 } as const
    return { largePublish: { ...(await raw.publish(message, RESPONSE_MS)), bytes: LARGE_BYTES } }
  })
}

export async function retained(examination: Examination, { connack }: Observed): Promise<Observed> {
  if (connack?.retainAvailable === false) return {}
  const topic = examination.retainedTopic('retained/a')
  return examination.using({}, async raw => {
    const publish = await raw.publish({ topic, payload: 'kept', qos: 1, retain: true }, RESPONSE_MS)
    const stored = await retainedOn(examination, topic)
    const found = await retainedOn(examination, `${examination.topic('retained')}/+`)
    await raw.publish({ topic, payload: '', qos: 1, retain: true }, RESPONSE_MS)
    return {
      retained: {
        publish,
        hasArrived: stored !== undefined,
        hasFlag: stored?.retain === true,
        hasWildcard: found !== undefined,
        isRemoved: (await retainedOn(examination, topic)) === undefined,
      },
    }
  })
}

async function retainedOn(examination: Examination, filter: string) {
  return examination.using({}, async raw => {
    await subscribed(raw, filter, 1)
    return raw.take('publish', () => true, examination.quietMs)
  })
}

const EXPIRY_SECONDS = 100
const EXPIRY_WAIT_MS = 2_200

/** Retained messages on MQTT 5: one that must be older when it arrives, and one that must have expired. */
export async function messageExpiry(
  examination: Examination,
  { connack, retained: kept }: Observed,
): Promise<Observed> {
  if (examination.protocolVersion !== 5 || connack?.retainAvailable === false || kept?.hasArrived !== true)
    return {}
  const long = examination.retainedTopic('expiry/long')
  const short = examination.retainedTopic('expiry/short')
  return examination.using({}, async raw => {
    const expiring = async (topic: string, messageExpiryInterval: number) =>
      raw.publish(
        { topic, payload: 'kept', qos: 1, retain: true, properties: { messageExpiryInterval } },
        RESPONSE_MS,
      )
    await expiring(long, EXPIRY_SECONDS)
    await expiring(short, 1)
    const startMs = performance.now()
    await raw.take('disconnect', () => true, EXPIRY_WAIT_MS)
    const waitedMs = performance.now() - startMs
    if (waitedMs < EXPIRY_WAIT_MS - 10) throw new Interrupted(raw.whyEnded ?? 'no time is left')
    const arrived = await retainedOn(examination, long)
    const gone = await retainedOn(examination, short)
    if (arrived === undefined) throw new Interrupted('the message did not arrive')
    return {
      messageExpiry: {
        sent: EXPIRY_SECONDS,
        received: arrived.properties?.messageExpiryInterval,
        waitedMs: Math.round(waitedMs),
        isExpiredGone: gone === undefined,
      },
    }
  })
}

export async function userProperties(examination: Examination): Promise<Observed> {
  if (examination.protocolVersion !== 5) return {}
  const topic = examination.topic('properties')
  return examination.using({}, async raw => {
    await subscribed(raw, topic, 0)
    const properties = { userProperties: { trace: ['1', '2'], other: 'ä' } }
    await raw.publish({ topic, payload: 'x', properties }, RESPONSE_MS)
    const arrived = await raw.take('publish', packet => packet.topic === topic, RESPONSE_MS)
    const kept = { ...arrived?.properties?.userProperties }
    return {
      userProperties: {
        isKept: kept['other'] === 'ä' && [kept['trace']].flat().length === 2,
        isOrdered: String(kept['trace']) === '1,2',
      },
    }
  })
}

export async function topicAlias(examination: Examination, { connack }: Observed): Promise<Observed> {
  const maximum = connack?.topicAliasMaximum ?? 0
  if (examination.protocolVersion !== 5 || maximum === 0) return {}
  const topic = examination.topic('alias')
  return examination.using({}, async raw => {
    await subscribed(raw, topic, 0)
    for (const name of [topic, ''])
      await raw.publish({ topic: name, payload: name || 'alias', properties: { topicAlias: 1 } }, RESPONSE_MS)
    const isAlias = (packet: { payload: string | Buffer; topic: string }): boolean =>
      packet.topic === topic && String(packet.payload) === 'alias'
    const arrived = await raw.take('publish', isAlias, RESPONSE_MS)
    return { topicAlias: { maximum, hasArrived: arrived !== undefined } }
  })
}

const OWN_LIMIT = 512

/** Sends a packet to a client that has said that it is too large (MQTT-3.1.2-24). */
export async function ownPacketLimit(examination: Examination): Promise<Observed> {
  if (examination.protocolVersion !== 5) return {}
  const topic = examination.topic('size')
  return examination.using({ properties: { maximumPacketSize: OWN_LIMIT } }, async small => {
    await subscribed(small, topic, 1)
    return examination.using({}, async raw => {
      await raw.publish({ topic, payload: Buffer.alloc(2 * OWN_LIMIT), qos: 1 }, RESPONSE_MS)
      await raw.publish({ topic, payload: 'small', qos: 1 }, RESPONSE_MS)
      const arrived = await small.all(topic, examination.quietMs)
      return {
        ownPacketLimit: {
          limit: OWN_LIMIT,
          hasArrived: arrived.some(({ payload }) => payload.length > OWN_LIMIT),
          isAlive: arrived.some(({ payload }) => payload.length === 'small'.length),
        },
      }
    })
  })
}
