import type { Observed } from './check-messages.js'
import { subscribed } from './check-messages.js'
import { type Examination, RESPONSE_MS } from './examination.js'
import type { RawConnection } from './raw-connection.js'

export async function wildcards(examination: Examination): Promise<Observed> {
  return examination.using({}, async raw => {
    const codes = await raw.subscribe([{ topic: `${examination.topic('wild')}/+/#`, qos: 0 }], RESPONSE_MS)
    const topic = examination.topic('wild/a/b/c')
    await raw.publish({ topic, payload: 'x' }, RESPONSE_MS)
    const arrived = await raw.take('publish', packet => packet.topic === topic, examination.quietMs)
    return { wildcards: { code: codes?.[0], hasMatched: arrived !== undefined } }
  })
}

/** A dot, a space, an empty level, and characters beyond ASCII are ordinary in MQTT (4.7), but not in every broker. */
const CHARACTERS = ['a.b', 'a b', 'a//b', 'ä/℃'] as const

/** Each on its own connection, since the broker may close it. */
export async function topicCharacters(examination: Examination): Promise<Observed> {
  const root = examination.topic('characters')
  const observed = []
  for (const sent of CHARACTERS) observed.push(await character(examination, root, sent))
  return { topicCharacters: observed }
}

async function character(examination: Examination, root: string, sent: string) {
  const topic = `${root}/${sent}`
  return examination.using({}, async subscriber => {
    await subscribed(subscriber, `${root}/#`, 1)
    return examination.using({}, async raw => {
      const { failure } = await raw.publish({ topic, payload: 'x', qos: 1 }, RESPONSE_MS)
      const arrived = await subscriber.take('publish', () => true, examination.quietMs)
      const received = arrived?.topic.slice(root.length + 1)
      return { sent, received, ...(failure === undefined ? {} : { failure }) }
    })
  })
}

const SHARED = 20

/** Two members of one group: each message must reach exactly one of them. */
export async function shared(examination: Examination): Promise<Observed> {
  const topic = examination.topic('shared')
  const filter = { topic: `$share/doctor/${topic}`, qos: 1 } as const
  return examination.using({}, async one => {
    const codes = await one.subscribe([filter], RESPONSE_MS)
    const [code] = codes ?? []
    if (code === undefined || code >= 0x80)
      return { shared: { code, published: 0, members: [0, 0] as const } }
    return examination.using({}, async other => {
      await other.subscribe([filter], RESPONSE_MS)
      await examination.using({}, async raw => {
        for (let count = 0; count < SHARED; count += 1)
          await raw.publish({ topic, payload: String(count), qos: 1 }, RESPONSE_MS)
      })
      const copies = await Promise.all([one, other].map(raw => raw.all(topic, examination.quietMs)))
      const members = [copies[0]?.length ?? 0, copies[1]?.length ?? 0] as const
      return { shared: { code, published: SHARED, members } }
    })
  })
}

const listed = (id: number | number[] | undefined): number[] => (id === undefined ? [] : [id].flat())

/** Some brokers close the connection when they do not know the property. */
export async function identifiers(examination: Examination, { connack }: Observed): Promise<Observed> {
  if (examination.protocolVersion !== 5 || connack?.subscriptionIdentifiersAvailable === false) return {}
  const topic = examination.topic('identifier')
  return examination.using({}, async raw => {
    const codes = await raw.subscribe([{ topic, qos: 0 }], RESPONSE_MS, 268_000_001)
    await raw.publish({ topic, payload: 'x' }, RESPONSE_MS)
    const arrived = await raw.take('publish', packet => packet.topic === topic, examination.quietMs)
    return {
      identifiers: { code: codes?.[0], returned: listed(arrived?.properties?.subscriptionIdentifier) },
    }
  })
}

/** Two filters of one client match the same message (MQTT 5, 3.3.4). */
export async function overlapping(
  examination: Examination,
  { identifiers: known }: Observed,
): Promise<Observed> {
  const topic = examination.topic('overlap/a')
  const withIds = (known?.returned.length ?? 0) > 0
  return examination.using({}, async raw => {
    const filters = [topic, `${examination.topic('overlap')}/+`]
    for (const [index, filter] of filters.entries())
      await raw.subscribe([{ topic: filter, qos: 1 }], RESPONSE_MS, withIds ? index + 1 : undefined)
    await raw.publish({ topic, payload: 'x', qos: 1 }, RESPONSE_MS)
    const copies = await raw.all(topic, examination.quietMs)
    return {
      overlapping: {
        copies: copies.length,
        identifiers: copies.flatMap(({ properties }) => listed(properties?.subscriptionIdentifier)),
      },
    }
  })
}

export async function noLocal(examination: Examination): Promise<Observed> {
  if (examination.protocolVersion !== 5) return {}
  const topic = examination.topic('local')
  return examination.using({}, async raw => {
    const codes = await raw.subscribe([{ topic, qos: 1, nl: true }], RESPONSE_MS)
    await raw.publish({ topic, payload: 'x', qos: 1 }, RESPONSE_MS)
    const copies = await raw.all(topic, examination.quietMs)
    return { noLocal: { code: codes?.[0], ownCopies: copies.length } }
  })
}

/** The options of a subscription that concern retained messages (MQTT 5, 3.8.3.1). */
export async function retainOptions(
  examination: Examination,
  { connack, retained }: Observed,
): Promise<Observed> {
  if (
    examination.protocolVersion !== 5 ||
    connack?.retainAvailable === false ||
    retained?.hasArrived !== true
  )
    return {}
  const topic = examination.retainedTopic('options')
  return examination.using({}, async raw => {
    await raw.subscribe([{ topic, qos: 0, rap: true, rh: 0 }], RESPONSE_MS)
    await raw.publish({ topic, payload: 'kept', qos: 1, retain: true }, RESPONSE_MS)
    const [live] = await raw.all(topic, examination.quietMs)
    await raw.subscribe([{ topic, qos: 0, rh: 1 }], RESPONSE_MS)
    const existing = await raw.all(topic, examination.quietMs)
    const never = await examination.using({}, async other => {
      await other.subscribe([{ topic, qos: 0, rh: 2 }], RESPONSE_MS)
      return other.all(topic, examination.quietMs)
    })
    return {
      retainAsPublished: { flag: live?.retain },
      retainHandling: { existing: existing.length, never: never.length },
    }
  })
}

export async function sysTopics(examination: Examination): Promise<Observed> {
  return examination.using({}, async raw => {
    const codes = await raw.subscribe([{ topic: '$SYS/#', qos: 0 }], RESPONSE_MS)
    const { quietMs } = examination
    const messages = await sysMessages(raw, quietMs)
    const version = messages.find(({ topic }) => topic.endsWith('/version'))?.payload
    const topics = new Set(messages.map(({ topic }) => topic)).size
    return {
      sysTopics: { code: codes?.[0], messages: messages.length, topics, quietMs: Math.round(quietMs) },
      ...(version === undefined ? {} : { brokerVersion: oneWordLine(String(version)) }),
    }
  })
}

const MOST_SYS = 500

async function sysMessages(raw: RawConnection, quietMs: number) {
  const found = []
  while (found.length < MOST_SYS) {
    const next = await raw.take('publish', ({ topic }) => topic.startsWith('$SYS/'), quietMs)
    if (next === undefined) break
    found.push(next)
  }
  return found
}

/** The version comes from the broker, so it is shortened and has no control characters. */
const oneWordLine = (text: string): string => text.replace(/[^\x20-\x7e]/g, '').slice(0, 60)

export async function will(examination: Examination): Promise<Observed> {
  const topic = examination.topic('will')
  return examination.using({}, async raw => {
    await subscribed(raw, topic, 1)
    const { raw: dying } = await examination.open({ will: { topic, payload: Buffer.from('gone'), qos: 1 } })
    dying.cut()
    const arrived = await raw.take('publish', packet => packet.topic === topic, RESPONSE_MS)
    return { will: { hasArrived: arrived !== undefined } }
  })
}
