import { MqttClient } from '../../client/mqtt-client.js'
import { type Observed, subscribed, timesOf } from './check-messages.js'
import { type Examination, type OpenOptions, RESPONSE_MS } from './examination.js'
import { countedStream, Interrupted, type RawConnection } from './raw-connection.js'

const SESSION_SECONDS = 120

/** Keeps a session over a lost connection, with a message that waits and one that was not acknowledged. */
export async function session(examination: Examination): Promise<Observed> {
  const topic = examination.topic('session')
  const options: OpenOptions = {
    clientId: examination.sessionId(),
    clean: false,
    ...(examination.protocolVersion === 5 ? { properties: { sessionExpiryInterval: SESSION_SECONDS } } : {}),
  }
  const { raw: first, connack } = await examination.open(options)
  first.acknowledges = false
  await subscribed(first, topic, 1)
  return examination.using({}, async raw => {
    await raw.publish({ topic, payload: 'unacknowledged', qos: 1 }, RESPONSE_MS)
    const arrived = await first.take('publish', packet => packet.topic === topic, RESPONSE_MS)
    first.cut()
    if (arrived === undefined) throw new Interrupted('a message did not arrive')
    await raw.take('disconnect', () => true, examination.quietMs)
    await raw.publish({ topic, payload: 'queued', qos: 1 }, RESPONSE_MS)
    const { raw: second, connack: resumed } = await examination.open(options)
    const messages = await second.all(topic, examination.quietMs)
    second.close()
    const of = (payload: string) => messages.find(message => String(message.payload) === payload)
    const grantedExpiry = connack.properties?.sessionExpiryInterval
    return {
      session: {
        sessionPresent: resumed.sessionPresent,
        hasQueued: of('queued') !== undefined,
        redeliveredDup: of('unacknowledged')?.dup,
        quietMs: Math.round(examination.quietMs),
        requestedExpiry: SESSION_SECONDS,
        ...(grantedExpiry === undefined ? {} : { grantedExpiry }),
      },
    }
  })
}

const WINDOW = 10
const FLOOD = 120

/**
 * Acknowledges nothing at first, and then one message after the other. Some brokers keep the limit of the client only until the
 * first acknowledgement.
 */
export async function receiveMaximum(examination: Examination): Promise<Observed> {
  const topic = examination.topic('window')
  const limit = examination.protocolVersion === 5 ? WINDOW : undefined
  const options = limit === undefined ? {} : { properties: { receiveMaximum: limit } }
  return examination.using(options, async raw => {
    raw.acknowledges = false
    await subscribed(raw, topic, 1)
    await examination.using({}, async publisher => {
      for (let sent = 0; sent < FLOOD; sent += WINDOW)
        await Promise.all(
          Array.from({ length: WINDOW }, () =>
            publisher.publish({ topic, payload: 'x', qos: 1 }, RESPONSE_MS),
          ),
        )
    })
    const held = await raw.all(topic, examination.quietMs)
    const before = held.length
    const after = before === FLOOD ? before : await afterAcknowledgements(raw, topic, held)
    return { receiveMaximum: { limit, published: FLOOD, before, after } }
  })
}

/** @returns the highest number of unacknowledged messages */
async function afterAcknowledgements(
  raw: RawConnection,
  topic: string,
  held: Awaited<ReturnType<RawConnection['all']>>,
): Promise<number> {
  let most = held.length
  for (let count = 0; count < WINDOW && held.length > 0; count += 1) {
    const oldest = held.shift()
    if (oldest !== undefined) raw.acknowledge(oldest)
    held.push(...(await raw.all(topic, 50)))
    most = Math.max(most, held.length)
  }
  return most
}

const REQUESTS = 30

/** Requests of this package: the time that an application sees. */
export async function requests(examination: Examination): Promise<Observed> {
  const topic = examination.topic('requests')
  const { target, traffic, protocolVersion, signal } = examination
  const waitMs = Math.max(1, Math.min(RESPONSE_MS, Math.floor(examination.leftMs)))
  const stream = countedStream(await target.open(waitMs, signal), protocolVersion, traffic)
  const { method, data } = target.authentication ?? {}
  const { username, password } = target
  const client = new MqttClient({
    createStream: () => stream,
    credentials: () => ({
      ...(username === undefined ? {} : { username }),
      ...(password === undefined ? {} : { password }),
      ...(data === undefined ? {} : { authenticationData: data }),
    }),
    ...(method === undefined ? {} : { authentication: { method } }),
    protocolVersion,
    connectTimeoutMs: waitMs,
    drainTimeoutMs: 100,
    outbound: { ackTimeoutMs: waitMs },
    requests: { timeoutMs: waitMs, responseTopicPrefix: examination.topic('responses') },
    reconnect: { verdict: () => 'stop' },
  })
  const close = (): void => void client.close()
  signal?.addEventListener('abort', close)
  try {
    client.respond(topic, () => 'response')
    await client.start()
    const times: number[] = []
    for (let count = 0; count < REQUESTS && examination.leftMs > 0; count += 1) {
      const sentMs = performance.now()
      await client.request(topic, 'request')
      times.push(performance.now() - sentMs)
    }
    return { requests: timesOf(times) }
  } finally {
    signal?.removeEventListener('abort', close)
    await client.close()
  }
}
