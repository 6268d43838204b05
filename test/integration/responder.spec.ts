import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { PublishPacket, PublishProperties } from '../../src/index.js'
import { publishesOf } from '../support/asking.js'
import { eventually } from '../support/eventually.js'
import type { Gate } from '../support/gate.js'
import { newGate, RespondingController, respondingApp, story } from '../support/responding-app.js'
import { json } from '../support/subscriber-on-peer.js'

const HANDLERS = 6
const correlationData = Buffer.from([1, 2, 3])
const TO = 'responses/1'

let gate: Gate
let on: Awaited<ReturnType<typeof respondingApp>>
const start = async (
  ...options: Parameters<typeof respondingApp> extends [unknown, unknown, ...infer R] ? R : []
) => {
  on = await respondingApp(HANDLERS, { controllers: [RespondingController] }, ...options)
}
beforeEach(() => {
  gate = newGate()
})
afterEach(() => on.app.close())

const ask = (topic: string, properties: PublishProperties = {}, fields: Partial<PublishPacket> = {}) =>
  on.connection.send(
    json(topic, 1, { properties: { responseTopic: TO, correlationData, ...properties }, ...fields }),
  )
const askForStream = (topic: string) => ask(topic, { userProperties: { stream: 'true' } })
const statusOf = ({ properties }: PublishPacket) => ({ ...properties?.userProperties })['status']
const bodyOf = ({ payload }: PublishPacket): unknown => JSON.parse(payload.toString())

describe('the response of a handler', () => {
  beforeEach(() => start())

  it.each([0, 1] as const)(
    'has the QoS %i of its request, its Correlation Data and a Content Type',
    async qos => {
      ask('echo', {}, qos === 0 ? {} : { qos, messageId: 7 })
      const reply = await on.connection.find('publish')
      expect(reply).toMatchObject({ topic: TO, payload: Buffer.from('1'), qos, retain: false })
      expect(reply.properties).toEqual({ correlationData, contentType: 'application/json' })
    },
  )

  it('has QoS 2 for a request of QoS 2', async () => {
    ask('echo', {}, { qos: 2, messageId: 7 })
    await on.connection.find('pubrec')
    on.connection.send({ cmd: 'pubrel', messageId: 7, reasonCode: 0 })
    expect(await on.connection.find('publish')).toMatchObject({ topic: TO, qos: 2 })
  })

  it('has no Correlation Data if the request had none', async () => {
    on.connection.send(json('echo', 1, { properties: { responseTopic: TO } }))
    const reply = await on.connection.find('publish')
    expect(reply.properties).toEqual({ contentType: 'application/json' })
  })

  it('has the QoS, retain and properties of the record that the handler returned', async () => {
    ask('record')
    const reply = await on.connection.find('publish')
    expect(reply).toMatchObject({ topic: TO, qos: 1, retain: true, payload: Buffer.from('{"celsius":4}') })
    expect(reply.properties).toMatchObject({ correlationData, messageExpiryInterval: 9 })
    expect({ ...reply.properties?.userProperties }).toEqual({ trace: 'a' })
  })

  it('does not delay the acknowledgement of the request', async () => {
    ask('echo', {}, { qos: 1, messageId: 7 })
    expect(await on.connection.find('puback')).toMatchObject({ messageId: 7 })
    expect(on.mqtt.stats()).toMatchObject({ inbound: { handled: 1, failed: 0 }, outbound: { inFlight: 1 } })
  })
})

describe('a stream of responses', () => {
  beforeEach(() => start())

  /** The responder's own topic, which it subscribes to with its first stream. */
  async function firstResponse() {
    await on.connection.grant()
    const response = await on.connection.find('publish')
    expect(statusOf(response)).toBe('next')
    return response
  }
  const cancel = (topic: string | undefined, data = correlationData) =>
    on.connection.send(
      json(topic ?? '', 0, {
        properties: { responseTopic: TO, correlationData: data, userProperties: { status: 'cancel' } },
      }),
    )

  it('of an Observable is unsubscribed by the cancel of its requester', async () => {
    askForStream('observed')
    const response = await firstResponse()
    expect(response).toMatchObject({ topic: TO, payload: Buffer.from('1'), properties: { correlationData } })
    expect(response.properties?.responseTopic).toMatch(/^nestjs-mqtt\/responses\//)
    cancel(response.properties?.responseTopic, Buffer.from([9]))
    ask('echo')
    expect(bodyOf(await on.connection.find('publish'))).toBe(1)
    expect(story).toEqual([['echo', 1]])
    cancel(response.properties?.responseTopic)
    await eventually(() => on.mqtt.stats().requests.openStreams === 0)
    expect(story).toEqual([['echo', 1], 'unsubscribed'])
    expect(publishesOf(on.connection)).toHaveLength(2)
  })

  it('holds no slot and does not block other requests of its topic while it is open', async () => {
    askForStream('observed')
    await firstResponse()
    for (let n = 0; n < 20; n += 1) askForStream('observed')
    await eventually(() => publishesOf(on.connection).length === 21)
    ask('echo')
    await eventually(() => publishesOf(on.connection).length === 22)
    expect(on.mqtt.stats()).toMatchObject({ inbound: { running: 0 }, requests: { openStreams: 21 } })
  })

  it('of an async generator is returned by the cancel of its requester', async () => {
    askForStream('generated')
    const response = await firstResponse()
    await gate.reached()
    cancel(response.properties?.responseTopic)
    await eventually(() => on.mqtt.stats().requests.openStreams === 0)
    gate.open()
    await eventually(() => story.length > 0)
    expect(story).toEqual(['returned'])
    expect(publishesOf(on.connection)).toHaveLength(1)
  })

  it('sends its end', async () => {
    gate.open()
    askForStream('generated')
    await firstResponse()
    await eventually(() => publishesOf(on.connection).length === 4)
    expect(publishesOf(on.connection).map(statusOf)).toEqual(['next', 'next', 'next', 'end'])
    expect(publishesOf(on.connection).slice(0, 3).map(bodyOf)).toEqual([1, 2, 3])
    expect(publishesOf(on.connection).at(-1)).toMatchObject({
      payload: Buffer.alloc(0),
      properties: { correlationData, userProperties: { status: 'end', values: '3' } },
    })
  })

  it('that fails after two values sends them, and then the error', async () => {
    askForStream('fails-late')
    await firstResponse()
    await eventually(() => publishesOf(on.connection).length === 3)
    expect(publishesOf(on.connection).map(statusOf)).toEqual(['next', 'next', 'error'])
    expect(publishesOf(on.connection).map(bodyOf)).toEqual([1, 2, { code: 'TOO_WARM' }])
  })

  it('has a topic for its cancels that is subscribed once', async () => {
    askForStream('fails-late')
    const first = await firstResponse()
    await eventually(() => publishesOf(on.connection).length === 3)
    askForStream('observed')
    await eventually(() => publishesOf(on.connection).length === 4)
    expect(publishesOf(on.connection)[3]?.properties?.responseTopic).toBe(first.properties?.responseTopic)
    expect(on.connection.received.filter(({ cmd }) => cmd === 'subscribe')).toHaveLength(HANDLERS + 1)
  })
})

describe('a Response Topic', () => {
  const refuses = (topic: string): boolean => topic.startsWith('responses/')
  const throws = (): boolean => {
    throw new Error('a bug')
  }

  it.each(['responses/#', 'responses/+', '#', '$SYS/x', '$share/g/x', ''])(
    'of %j receives no response; the handler runs, and the request is counted',
    async responseTopic => {
      await start()
      ask('echo', { responseTopic }, { qos: 1, messageId: 7 })
      await on.connection.find('puback')
      expect(story).toEqual([['echo', 1]])
      expect(publishesOf(on.connection)).toEqual([])
      expect(on.mqtt.stats()).toMatchObject({
        inbound: { failed: 0 },
        requests: { refusedResponseTopics: 1 },
      })
    },
  )

  it.each([
    ['says no', (topic: string) => !refuses(topic)],
    ['throws', throws],
  ])('receives no response if allowResponseTopic %s', async (_how, allowResponseTopic) => {
    await start({ allowResponseTopic })
    ask('echo', {}, { qos: 1, messageId: 7 })
    await on.connection.find('puback')
    expect(story).toEqual([['echo', 1]])
    expect(publishesOf(on.connection)).toEqual([])
    expect(on.mqtt.stats().requests.refusedResponseTopics).toBe(1)
  })

  it('receives its response if allowResponseTopic returns true', async () => {
    const asked: string[] = []
    await start({ allowResponseTopic: topic => asked.push(topic) > 0 })
    ask('echo')
    expect(await on.connection.find('publish')).toMatchObject({ topic: TO })
    expect(asked).toEqual([TO])
  })
})

it('a request that is redelivered while its handler runs is neither handled nor responded to twice', async () => {
  await start({ clean: false, clientId: 'kept' })
  const request = (dup: boolean) => ask('slow', {}, { qos: 1, messageId: 7, dup })
  request(false)
  await gate.reached()
  on.connection.cut()
  on.connection = await on.peer.accept({ sessionPresent: true })
  request(true)
  await eventually(() => on.mqtt.stats().inbound.repeated === 1)
  gate.open()
  expect(await on.connection.find('puback')).toMatchObject({ messageId: 7 })
  await eventually(() => publishesOf(on.connection).length > 0)
  expect(publishesOf(on.connection).map(bodyOf)).toEqual(['done'])
  expect(story).toEqual(['slow'])
})
