// What this package relies on, tried with its own client. Each feature returns undefined if it works, or what is different.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const WAIT_MS = 4_000
/** Within this time, what a broker sends at all has arrived. */
const QUIET_MS = 400

export const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

async function until(condition, what, waitMs = WAIT_MS) {
  const end = Date.now() + waitMs
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(what)
    await pause(10)
  }
}

const cut = client => client.unwrap().stream.destroy()

async function acknowledged(client, topic, payload, options) {
  const { status, reasonCode } = await client.publish(topic, payload, { timeoutMs: WAIT_MS, ...options })
  if (status !== 'acknowledged' && status !== 'sent')
    throw new Error(
      reasonCode === undefined ? `the publish is ${status}` : `${status} 0x${reasonCode.toString(16)}`,
    )
}

async function received(client, filter, options) {
  const messages = []
  const subscription = client.subscribe(filter, message => void messages.push(message), options)
  await subscription.whenGranted({ timeoutMs: WAIT_MS })
  return messages
}

const qosBothWays =
  qos =>
  async ({ open, topic }) => {
    const client = await open()
    const messages = await received(client, topic, { qos })
    await acknowledged(client, topic, 1, { qos })
    await until(() => messages.length > 0, 'the message does not arrive')
    if (messages[0].qos !== qos) return `delivered at QoS ${messages[0].qos}`
    await pause(50)
    return messages.length > 1 ? `${messages.length} copies` : undefined
  }

async function retained({ open, topic }) {
  const client = await open()
  await acknowledged(client, topic, 'kept', { qos: 1, retain: true })
  const reader = await open()
  const messages = await received(reader, topic, { qos: 1 })
  try {
    await until(() => messages.length > 0, 'not kept')
    return messages[0].retain ? undefined : 'delivered without the RETAIN flag'
  } finally {
    await client.publish(topic, Buffer.alloc(0), { qos: 1, retain: true })
  }
}

async function retainedCache({ open, topic }) {
  const client = await open()
  await acknowledged(client, `${topic}/a`, 1, { qos: 1, retain: true })
  const reader = await open()
  const values = reader.retained(`${topic}/+`)
  try {
    await values.whenComplete({ timeoutMs: WAIT_MS })
    if (values.get(`${topic}/a`) !== 1) return 'the stored value is missing'
    await acknowledged(client, `${topic}/a`, 2, { qos: 1, retain: true })
    await acknowledged(client, `${topic}/b`, 3, { qos: 1, retain: true })
    await until(() => values.get(`${topic}/a`) === 2 && values.size === 2, 'a change does not arrive')
    await client.publish(`${topic}/b`, Buffer.alloc(0), { qos: 1, retain: true })
    await until(() => !values.has(`${topic}/b`), 'a removal does not arrive')
    return undefined
  } finally {
    for (const name of ['a', 'b'])
      await client.publish(`${topic}/${name}`, Buffer.alloc(0), { qos: 1, retain: true })
  }
}

async function wildcards({ open, topic }) {
  const client = await open()
  const plus = await received(client, `${topic}/+/c`)
  const hash = await received(client, `${topic}/x/y/#`)
  await acknowledged(client, `${topic}/x/c`, 1)
  await acknowledged(client, `${topic}/x/y/z`, 1)
  await until(() => plus.length > 0 && hash.length > 0, 'a filter does not match')
  await pause(50)
  return plus.length + hash.length === 2 ? undefined : `${plus.length} and ${hash.length} runs`
}

async function sharedGroup({ open, topic }) {
  const members = [await open(), await open()]
  const messages = []
  for (const member of members)
    messages.push(await received(member, topic, { qos: 1, sharedGroup: 'interop' }))
  const client = await open()
  for (let count = 0; count < 20; count += 1) await acknowledged(client, topic, count, { qos: 1 })
  await until(() => messages.flat().length >= 20, 'x', 1_000).catch(() => {})
  await pause(100)
  const total = messages.flat().length
  if (total === 20) return undefined
  return total === 0 ? 'delivers nothing' : `${total} of 20 messages`
}

async function session({ open, topic, name }) {
  const options = { clean: false, clientId: `interop-${name}`, properties: { sessionExpiryInterval: 60 } }
  const first = await open(options)
  const early = await received(first, topic, { qos: 1 })
  const publisher = await open()
  await acknowledged(publisher, topic, 1, { qos: 1 })
  await until(() => early.length === 1, 'the first message does not arrive')
  await first.close()
  await acknowledged(publisher, topic, 2, { qos: 1 })
  const messages = []
  const second = await open(options, client =>
    client.subscribe(topic, ({ payload }) => void messages.push(payload), { qos: 1 }),
  )
  await until(() => messages.includes(2), 'the message published in between does not arrive')
  const { sessionPresent } = second.state.session
  await second.close()
  await (await open({ clientId: `interop-${name}` })).close()
  return sessionPresent ? undefined : 'the message arrives, but the session is reported as new'
}

/** A second client takes the session over, since the first one would recognise the repeat and not run its handler again. */
async function redelivery({ open, topic, name }) {
  const options = {
    clean: false,
    clientId: `interop-${name}`,
    properties: { sessionExpiryInterval: 60 },
    reconnect: { verdict: () => 'stop' },
  }
  let hasArrived = false
  const never = new Promise(() => {})
  const first = await open(options)
  const subscription = first.subscribe(
    topic,
    () => {
      hasArrived = true
      return never
    },
    { qos: 1 },
  )
  await subscription.whenGranted({ timeoutMs: WAIT_MS })
  await acknowledged(await open(), topic, 1, { qos: 1 })
  await until(() => hasArrived, 'the message does not arrive')
  cut(first)
  await until(() => first.state.status === 'closed', 'the loss is not noticed')
  const dups = []
  const second = await open(options, client =>
    client.subscribe(topic, ({ dup }) => void dups.push(dup), { qos: 1 }),
  )
  await until(() => dups.length > 0, `not within ${WAIT_MS / 1_000} s`)
  await second.close()
  await (await open({ clientId: `interop-${name}` })).close()
  return dups[0] ? undefined : 'without DUP'
}

async function presence({ open, topic }) {
  const watcher = await open()
  const messages = await received(watcher, topic)
  const client = await open({
    presence: { topic, online: 'on', offline: 'off' },
    reconnect: { verdict: () => 'stop' },
  })
  await until(() => messages.some(({ payload }) => payload === 'on'), '"online" does not arrive')
  cut(client)
  try {
    await until(() => messages.some(({ payload }) => payload === 'off'), 'the will is not published')
  } finally {
    await watcher.publish(topic, Buffer.alloc(0), { qos: 1, retain: true })
  }
}

async function requests({ open, topic }) {
  const responder = await open()
  await responder.respond(topic, ({ payload }) => payload * 2).whenGranted({ timeoutMs: WAIT_MS })
  const client = await open()
  const response = await client.request(topic, 21, { timeoutMs: WAIT_MS })
  return response === 42 ? undefined : `the response is ${response}`
}

async function streams({ open, topic }) {
  const responder = await open()
  const subscription = responder.respond(topic, async function* () {
    yield* [1, 2, 3]
  })
  await subscription.whenGranted({ timeoutMs: WAIT_MS })
  const client = await open()
  const values = []
  for await (const value of client.requestStream(topic, {}, { timeoutMs: WAIT_MS })) values.push(value)
  return values.join() === '1,2,3' ? undefined : `the values are ${values.join() || 'none'}`
}

async function noResponder({ open, topic }) {
  const client = await open()
  const error = await client.request(topic, 1, { qos: 1, timeoutMs: 1_000 }).catch(failure => failure)
  return error.code === 'NO_RESPONDER' ? undefined : error.code
}

async function messageExpiry({ open, topic }) {
  const client = await open()
  const options = { qos: 1, retain: true, properties: { messageExpiryInterval: 1 } }
  await acknowledged(client, `${topic}/short`, 1, options)
  await acknowledged(client, `${topic}/long`, 1, { ...options, properties: { messageExpiryInterval: 100 } })
  await pause(2_200)
  const messages = await received(await open(), `${topic}/+`, { qos: 1 })
  await until(() => messages.length > 0, 'the message does not arrive')
  await pause(100)
  try {
    if (messages.some(message => message.topic.endsWith('short'))) return 'an expired message is delivered'
    const { messageExpiryInterval: left } = messages[0].properties
    return left < 100 ? undefined : `the interval is ${left} s after 2 s`
  } finally {
    await client.publish(`${topic}/long`, Buffer.alloc(0), { qos: 1, retain: true })
  }
}

async function userProperties({ open, topic }) {
  const client = await open()
  const messages = await received(client, topic)
  await acknowledged(client, topic, 1, {
    properties: { userProperties: { trace: ['a', 'b'] }, contentType: 'text/x' },
  })
  await until(() => messages.length > 0, 'the message does not arrive')
  const { userProperties: kept, contentType } = messages[0].properties
  return String(kept?.trace) === 'a,b' && contentType === 'text/x' ? undefined : 'not kept'
}

async function topicAlias({ open, topic }) {
  const client = await open()
  const { topicAliasMaximum } = client.state.session.limits
  if (topicAliasMaximum === 0) return 'the broker accepts none'
  const messages = await received(client, topic)
  for (let count = 0; count < 5; count += 1) await acknowledged(client, topic, count)
  await until(() => messages.length === 5, `${messages.length} of 5 messages arrive`)
}

async function noLocal({ open, topic }) {
  const client = await open()
  const own = await received(client, topic, { noLocal: true })
  const others = await received(await open(), topic)
  await acknowledged(client, topic, 1, { qos: 1 })
  await until(() => others.length > 0, 'the message does not arrive')
  await pause(QUIET_MS)
  return own.length === 0 ? undefined : 'own messages arrive'
}

async function overlapping({ open, topic }) {
  const client = await open()
  const exact = await received(client, `${topic}/a`, { qos: 1 })
  const wild = await received(client, `${topic}/+`, { qos: 1 })
  await acknowledged(await open(), `${topic}/a`, 1, { qos: 1 })
  await until(() => exact.length > 0 && wild.length > 0, 'a handler does not run')
  await pause(QUIET_MS)
  return exact.length + wild.length === 2
    ? undefined
    : `the handlers run ${exact.length} and ${wild.length} times`
}

async function receiveMaximum({ open, topic }) {
  const client = await open({ inbound: { maxInFlight: 5, concurrency: 100 } })
  const waiting = []
  const subscription = client.subscribe(topic, () => new Promise(resolve => waiting.push(resolve)), {
    qos: 1,
    order: 'none',
    concurrency: 100,
  })
  await subscription.whenGranted({ timeoutMs: WAIT_MS })
  const publisher = await open()
  await Promise.all(Array.from({ length: 60 }, () => acknowledged(publisher, topic, 1, { qos: 1 })))
  await until(() => waiting.length > 0, 'no message arrives')
  await pause(QUIET_MS)
  let most = waiting.length
  const first = most
  for (let count = 0; count < 3; count += 1) {
    waiting.shift()?.()
    await pause(QUIET_MS / 2)
    most = Math.max(most, waiting.length)
  }
  for (let count = 0; count < 100; count += 1) {
    for (const finish of waiting.splice(0)) finish()
    await pause(1)
  }
  if (first === 1 && most === 1) return 'respected, but one message at a time'
  if (most <= 5) return undefined
  return `${most} unacknowledged messages where 5 are allowed`
}

async function store({ open, topic, modules }) {
  const folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-interop-'))
  const settled = []
  try {
    const messages = await received(await open(), topic, { qos: 1 })
    const client = await open({
      store: modules.sqliteStore(join(folder, 'messages.db')),
      reconnect: { delayMs: [200] },
      onStoredSettled: ({ outcome }) => settled.push(outcome.status),
    })
    cut(client)
    await until(() => client.state.status !== 'connected', 'the loss is not noticed')
    const { status } = await client.publish(topic, 'kept', { qos: 1, whenBlocked: 'store' })
    if (status !== 'stored') return `the publish is ${status}`
    await until(() => messages.length > 0 && settled.length > 0, 'the stored message does not arrive')
    await client.close()
    return settled[0] === 'delivered' ? undefined : `the outcome is ${settled[0]}`
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** In the order of the table. `isMqtt5`: MQTT 3.1.1 does not have it. */
export const FEATURES = [
  { title: 'QoS 0, both ways', run: qosBothWays(0) },
  { title: 'QoS 1, both ways', run: qosBothWays(1) },
  { title: 'QoS 2, both ways', run: qosBothWays(2) },
  { title: 'Wildcards', run: wildcards },
  { title: 'Overlapping filters: each handler runs once', run: overlapping },
  { title: '`sharedGroup` (Shared Subscriptions)', run: sharedGroup },
  { title: 'Retained messages', run: retained },
  { title: '`retained()`', run: retainedCache },
  { title: '`clean: false`: messages published in between', run: session },
  { title: '`clean: false`: redelivery, with DUP', run: redelivery },
  { title: '`presence` (will)', run: presence },
  { title: '`request()` and `respond()`', run: requests },
  { title: '`requestStream()`', run: streams },
  { title: '`NO_RESPONDER` at QoS 1', run: noResponder, isMqtt5: true },
  { title: "`whenBlocked: 'store'`", run: store },
  { title: 'Receive Maximum of the client', run: receiveMaximum, isMqtt5: true },
  { title: 'Message Expiry', run: messageExpiry, isMqtt5: true },
  { title: 'Topic Alias', run: topicAlias, isMqtt5: true },
  { title: 'User Properties, Content Type', run: userProperties, isMqtt5: true },
  { title: '`noLocal`', run: noLocal, isMqtt5: true },
]
