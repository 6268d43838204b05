import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { Ctx, MessagePattern, Payload, Transport } from '@nestjs/microservices'
import { Observable } from 'rxjs'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { handle, type MqttContext, type MqttModuleOptions, type PublishPacket } from '../../src/index.js'
import { publishesOf } from '../support/asking.js'
import { eventually } from '../support/eventually.js'
import { quiet } from '../support/held-clock.js'
import { respondingApp } from '../support/responding-app.js'
import { json } from '../support/subscriber-on-peer.js'

const TO = 'responses/1'
const LEASE_MS = 10_000
const left: unknown[] = []
const signals: AbortSignal[] = []

function endless(value: unknown, first?: unknown): Observable<unknown> {
  return new Observable(subscriber => {
    if (first !== undefined) subscriber.next(first)
    return () => left.push(value)
  })
}

@Controller()
class StreamingController {
  @MessagePattern('ordered', Transport.MQTT, handle({ order: 'topic', concurrency: 1 }))
  ordered(@Payload() value: unknown): Observable<unknown> {
    return endless(value, value)
  }

  @MessagePattern('silent')
  silent(@Payload() value: unknown, @Ctx() context: MqttContext): Observable<unknown> {
    signals.push(context.signal)
    return endless(value)
  }

  @MessagePattern('twice')
  one(@Payload() value: unknown): Observable<unknown> {
    return endless(['one', value], 1)
  }

  @MessagePattern('twice')
  two(@Payload() value: unknown): Observable<unknown> {
    return endless(['two', value], 2)
  }

  @MessagePattern('echo')
  echo(@Payload() value: unknown): unknown {
    return value
  }
}

let on: Awaited<ReturnType<typeof respondingApp>>
async function start(options: MqttModuleOptions = {}) {
  on = await respondingApp(4, { controllers: [StreamingController] }, options)
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval'] })
}
beforeEach(() => {
  left.length = 0
  signals.length = 0
})
afterEach(async () => {
  vi.useRealTimers()
  await on.app.close()
})

interface Question {
  readonly value?: unknown
  readonly to?: string
  readonly id?: number
  readonly lease?: string
  readonly expiry?: number
  readonly isStream?: boolean
}

const propertiesOf = ({ to = TO, id = 1, lease, expiry, isStream = true }: Question) => ({
  responseTopic: to,
  correlationData: Buffer.from([id]),
  ...(expiry === undefined ? {} : { messageExpiryInterval: expiry }),
  ...(isStream ? { userProperties: { stream: 'true', ...(lease === undefined ? {} : { lease }) } } : {}),
})

function ask(topic: string, question: Question = {}, fields: Partial<PublishPacket> = {}): void {
  on.connection.send(json(topic, question.value ?? 0, { properties: propertiesOf(question), ...fields }))
}

const say = (status: 'cancel' | 'renew', topic: string, { to = TO, id = 1 }: Question = {}): void =>
  on.connection.send(
    json(topic, 0, {
      properties: { responseTopic: to, correlationData: Buffer.from([id]), userProperties: { status } },
    }),
  )

const responses = () => publishesOf(on.connection)
const statuses = () => responses().map(({ properties }) => ({ ...properties?.userProperties })['status'])

/** Waits for so many responses; the first stream of a connection subscribes to the topic of its cancels. */
async function heard(count: number): Promise<string> {
  await eventually(() => responses().length === count)
  return (
    responses().find(({ properties }) => properties?.responseTopic !== undefined)?.properties
      ?.responseTopic ?? ''
  )
}

async function firstStream(topic: string, question: Question = {}): Promise<string> {
  ask(topic, question)
  await on.connection.grant()
  return heard(1)
}

describe('an open stream', () => {
  it('does not block the requests of its topic, even if the handler has an order', async () => {
    await start()
    await firstStream('ordered')
    for (let id = 2; id <= 20; id += 1) ask('ordered', { id })
    await heard(20)
    expect(on.mqtt.stats()).toMatchObject({ inbound: { running: 0 }, requests: { openStreams: 20 } })
  })

  it('does not delay the acknowledgement of its request or of later ones', async () => {
    await start()
    ask('ordered', {}, { qos: 1, messageId: 7 })
    await on.connection.grant()
    expect(await on.connection.find('puback')).toMatchObject({ messageId: 7 })
  })

  it('without a value holds a slot for at most one second', async () => {
    await start({ inbound: { concurrency: 2 } })
    for (const id of [1, 2]) ask('silent', { id })
    await on.connection.grant()
    ask('echo', { isStream: false, id: 3 })
    await eventually(() => signals.length === 2)
    await quiet()
    expect(responses()).toEqual([])
    await vi.advanceTimersByTimeAsync(1_000)
    await heard(1)
  })

  it('is counted, and the oldest one that is not renewed is ended for a further one', async () => {
    await start({ requests: { maxStreams: 2 } })
    await firstStream('ordered', { value: 'renewed', lease: '10' })
    ask('ordered', { value: 'old', id: 2 })
    await heard(2)
    ask('ordered', { value: 'new', id: 3 })
    await heard(4)
    expect(left).toEqual(['old'])
    expect(statuses()).toEqual(['next', 'next', 'error', 'next'])
    expect(on.mqtt.stats().requests).toMatchObject({ openStreams: 2, evictedStreams: 1 })
    expect(on.logger.ofMqtt.join()).toContain('requests.maxStreams')
  })

  it('is refused at the limit if all open streams are renewed', async () => {
    await start({ requests: { maxStreams: 1 } })
    await firstStream('ordered', { value: 'renewed', lease: '10' })
    ask('ordered', { value: 'refused', id: 2 })
    await heard(2)
    expect(statuses()).toEqual(['next', 'error'])
    expect(left).toEqual([])
    expect(on.mqtt.stats().requests).toMatchObject({ openStreams: 1, evictedStreams: 0 })
  })
})

describe('a stream without its requester', () => {
  it('ends with its lease, and continues while it is renewed', async () => {
    await start()
    const topic = await firstStream('ordered', { value: 'leased', lease: String(LEASE_MS / 1_000) })
    for (let round = 0; round < 5; round += 1) {
      await vi.advanceTimersByTimeAsync(LEASE_MS - 1)
      say('renew', topic, { to: 'responses/2' })
      say('renew', topic)
      await quiet()
    }
    expect(left).toEqual([])
    await vi.advanceTimersByTimeAsync(LEASE_MS)
    expect(left).toEqual(['leased'])
    await heard(2)
    expect(statuses()).toEqual(['next', 'error'])
    expect(on.mqtt.stats().requests).toMatchObject({ openStreams: 0, abandonedStreams: 1 })
  })

  it('ends when the broker reports that its responses have no subscriber', async () => {
    await start()
    ask('ordered', { value: 'at QoS 1' }, { qos: 1, messageId: 7 })
    await on.connection.grant()
    const { messageId = 0 } = await on.connection.find('publish')
    on.connection.send({ cmd: 'puback', messageId, reasonCode: 0x10 })
    await eventually(() => left.length === 1)
    expect(on.mqtt.stats().requests).toMatchObject({ openStreams: 0, abandonedStreams: 1 })
  })

  it('ends before its first value when the requester stops waiting, and aborts the signal of the handler', async () => {
    await start()
    ask('silent', { value: 'silent', lease: '10', expiry: 20 })
    await on.connection.grant()
    await eventually(() => signals.length === 1)
    await vi.advanceTimersByTimeAsync(19_999)
    expect(left).toEqual([])
    await vi.advanceTimersByTimeAsync(1)
    expect(left).toEqual(['silent'])
    expect(signals[0]?.aborted).toBe(true)
  })

  it('for a request for one response ends at the time limit, without a message', async () => {
    await start()
    ask('silent', { value: 'one', expiry: 5, isStream: false })
    await eventually(() => signals.length === 1)
    await vi.advanceTimersByTimeAsync(5_000)
    expect(left).toEqual(['one'])
    await quiet()
    expect(responses()).toEqual([])
  })

  it('is not ended by a lease that cannot be renewed', async () => {
    await start()
    ask('ordered', { lease: '1' })
    await on.connection.grant(0x87)
    await heard(1)
    await vi.advanceTimersByTimeAsync(60_000)
    expect(left).toEqual([])
  })
})

describe('a cancel', () => {
  it('stops every handler that responds', async () => {
    await start()
    ask('twice')
    await on.connection.grant()
    say('cancel', await heard(2))
    await eventually(() => left.length === 2)
    expect(left).toEqual(
      expect.arrayContaining([
        ['one', 0],
        ['two', 0],
      ]),
    )
    expect(statuses()).toEqual(['next', 'next'])
  })

  it('does not stop a stream of another requester with the same Correlation Data', async () => {
    await start()
    const topic = await firstStream('ordered', { value: 'mine' })
    ask('ordered', { value: 'of the other', to: 'responses/2' })
    await heard(2)
    say('cancel', topic, { to: 'responses/2' })
    await eventually(() => left.length === 1)
    expect(left).toEqual(['of the other'])
    expect(on.mqtt.stats().requests.openStreams).toBe(1)
  })
})
