import { Controller, Injectable, Scope, UseFilters, UseGuards, UseInterceptors } from '@nestjs/common'
import { Ctx, EventPattern, MessagePattern, Payload, RpcException, Transport } from '@nestjs/microservices'
import { type Observable, of, tap, throwError } from 'rxjs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { handle, type MqttContext, MqttTransport, type PublishPacket, TopicParam } from '../../src/index.js'
import { type PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { quiet } from '../support/held-clock.js'
import { startMicroservice } from '../support/nest-app.js'
import { calls, NoteFilter, NoteInterceptor, PlusOnePipe, TopicGuard } from '../support/noted-calls.js'
import { message } from '../support/session-on-peer.js'

@Injectable({ scope: Scope.REQUEST })
class PerMessage {
  readonly id = Math.random()
}

@Controller()
class PipelineController {
  @UseGuards(TopicGuard)
  @UseInterceptors(NoteInterceptor)
  @UseFilters(NoteFilter)
  @EventPattern<string>('pipeline/+')
  onEvent(@Payload(PlusOnePipe) value: number, @Ctx() context: MqttContext): void {
    calls.push(['event', value, context.getTopic(), context.pattern, context.qos, context.retain])
  }

  @EventPattern<string>('two')
  first(@Payload() value: unknown): void {
    calls.push(['first', value])
  }

  @EventPattern<string>('two')
  second(@Payload() value: unknown): Observable<unknown> {
    return of(1, 2).pipe(tap(() => calls.push(['second', value])))
  }

  @EventPattern<string>('typed/+id/#rest', Transport.MQTT, handle({ codec: 'bytes', qos: 0 }))
  onBytes(@Payload() bytes: Buffer, @TopicParam('id') id: string, @TopicParam('rest') rest: string): void {
    calls.push(['bytes', bytes, id, rest])
  }

  @EventPattern<string>('failing')
  fails(@Payload() how: string): unknown {
    if (how === 'throw') throw new Error('thrown')
    if (how === 'observable') return throwError(() => new Error('errored'))
    if (how === 'reject') return Promise.reject('no error at all')
    return undefined
  }

  @MessagePattern('sum')
  sum(@Payload() values: number[]): number {
    if (!Array.isArray(values)) throw new RpcException('a list is needed')
    return values.reduce((total, value) => total + value, 0)
  }
}

@Controller()
class ScopedController {
  constructor(private readonly perMessage: PerMessage) {}

  @EventPattern<string>('scoped')
  onScoped(): void {
    calls.push(this.perMessage.id)
  }
}
Reflect.defineMetadata('design:paramtypes', [PerMessage], ScopedController)

let started: Awaited<ReturnType<typeof startMicroservice>>
let connection: PeerConnection

beforeEach(async () => {
  calls.length = 0
  const peer = new ScriptedPeer()
  const starting = startMicroservice(
    { createStream: peer.createStream, protocolVersion: 5, drainTimeoutMs: 10, keepalive: 0 },
    { controllers: [PipelineController, ScopedController], providers: [PerMessage] },
  )
  connection = await peer.accept()
  for (let filter = 0; filter < 6; filter += 1) await connection.grant()
  started = await starting
})
afterEach(() => started.app.close())

const deliver = (topic: string, payload: unknown, fields: Partial<PublishPacket> = {}) =>
  connection.send(
    message(topic, { payload: Buffer.isBuffer(payload) ? payload : JSON.stringify(payload), ...fields }),
  )
const handled = (count: number) => eventually(() => started.mqtt.stats().inbound.handled === count)
const published = () => connection.received.filter(packet => packet.cmd === 'publish')

describe('an event passes through the pipeline of Nest', () => {
  it('guard, interceptor, pipe and handler, with its context', async () => {
    deliver('pipeline/a', 1, { qos: 1, messageId: 1, retain: true })
    await handled(1)
    expect(calls).toEqual([
      'guard of PipelineController',
      'before',
      ['event', 2, 'pipeline/a', 'pipeline/+', 1, true],
      'after',
    ])
  })

  it('a guard prevents the handler from running, and the message counts as failed', async () => {
    deliver('pipeline/forbidden', 1)
    await handled(1)
    expect(calls).toEqual(['guard of PipelineController', 'filter Forbidden resource pipeline/forbidden'])
    expect(started.mqtt.stats().inbound.failed).toBe(1)
  })

  it('an exception filter receives the error of a pipe', async () => {
    deliver('pipeline/a', 'text')
    await handled(1)
    expect(calls).toEqual(['guard of PipelineController', 'before', 'filter a number is needed pipeline/a'])
    expect(started.logger.ofMqtt).toContainEqual(
      'error [Mqtt] the handler of "pipeline/+" failed for a message on "pipeline/a": a number is needed',
    )
  })

  it('every handler of one pattern runs once, and an Observable is awaited until it completes', async () => {
    deliver('two', 'x')
    await handled(1)
    expect(calls).toEqual([
      ['first', 'x'],
      ['second', 'x'],
      ['second', 'x'],
    ])
  })

  it('named wildcards and a codec of its own', async () => {
    deliver('typed/7/a/b', Buffer.from([0xff, 0xfe]))
    await handled(1)
    expect(calls).toEqual([['bytes', Buffer.from([0xff, 0xfe]), '7', 'a/b']])
  })

  it('a request-scoped controller is made for each message', async () => {
    deliver('scoped', 1)
    deliver('scoped', 2)
    await handled(2)
    expect(new Set(calls).size).toBe(2)
  })
})

describe('malicious or unusual input', () => {
  it.each(['throw', 'observable', 'reject'])(
    'a handler that fails by %s is logged and counted, and its message acknowledged',
    async how => {
      deliver('failing', how, { qos: 1, messageId: 9 })
      expect(await connection.expect('puback')).toMatchObject({ messageId: 9 })
      expect(started.mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 1 })
      expect(started.logger.ofMqtt.filter(line => line.startsWith('error'))).toHaveLength(1)
      deliver('two', 1)
      await handled(2)
    },
  )

  it('a payload that is not JSON only fails its message', async () => {
    deliver('two', Buffer.from('{"half":'), { qos: 1, messageId: 3 })
    expect(await connection.expect('puback')).toMatchObject({ messageId: 3 })
    expect(calls).toEqual([])
    expect(started.logger.ofMqtt.at(-1)).toMatch(/the payload on "two" could not be decoded/)
  })

  it('a thousand invalid payloads are one log line, and a count 10 s later', async () => {
    for (let index = 0; index < 1_000; index += 1) deliver('two', Buffer.from('{'))
    await handled(1_000)
    expect(started.logger.ofMqtt.filter(line => line.includes('could not be decoded'))).toHaveLength(1)
  })

  it.each(['null', 'true', '0', '{}', '"two"'])('a topic named %s is a topic', async topic => {
    deliver(topic, 1, { qos: 1, messageId: 4 })
    expect(await connection.expect('puback')).toMatchObject({ messageId: 4 })
    expect(started.mqtt.stats().inbound.unmatched).toBe(1)
  })

  it('{"id":1,"data":2} for an event handler is a plain payload, and nothing is published', async () => {
    for (const payload of [
      { id: 1, data: 2 },
      { id: '1', data: 2, pattern: 'two' },
    ])
      deliver('two', payload)
    await handled(2)
    expect(calls).toContainEqual(['first', { id: 1, data: 2 }])
    expect(calls).toContainEqual(['first', { id: '1', data: 2, pattern: 'two' }])
    expect(published()).toEqual([])
  })

  it('an event with a Response Topic receives no response', async () => {
    deliver('two', 1, { properties: { responseTopic: 'responses', correlationData: Buffer.from('1') } })
    await handled(1)
    await quiet()
    expect(published()).toEqual([])
  })
})

describe('a @MessagePattern handler', () => {
  it('handles a plain message and sends no response', async () => {
    deliver('sum', [1, 2])
    await handled(1)
    expect(published()).toEqual([])
  })

  it('responds on the Response Topic with the Correlation Data', async () => {
    const correlationData = Buffer.from([1, 2, 3])
    deliver('sum', [1, 2], { properties: { responseTopic: 'responses/1', correlationData } })
    const reply = await connection.expect('publish')
    expect(reply).toMatchObject({
      topic: 'responses/1',
      payload: Buffer.from('3'),
      qos: 0,
      properties: { correlationData },
    })
  })

  it('responds with the error of the handler', async () => {
    deliver('sum', 1, { properties: { responseTopic: 'responses/1' } })
    const reply = await connection.expect('publish')
    expect(reply.properties?.userProperties).toMatchObject({ status: 'error' })
    expect(JSON.parse(reply.payload.toString())).toEqual({ status: 'error', message: 'a list is needed' })
  })

  it('responds with an error if the payload cannot be decoded', async () => {
    deliver('sum', Buffer.from('{'), { properties: { responseTopic: 'responses/1' } })
    const reply = await connection.expect('publish')
    expect(JSON.parse(reply.payload.toString())).toEqual({
      status: 'error',
      message: 'the payload on "sum" could not be decoded (1 byte: SyntaxError)',
    })
  })

  it.each(['responses/#', 'responses/+', '$SYS/x', ''])(
    'does not respond on the Response Topic %j',
    async responseTopic => {
      deliver('sum', [1], { properties: { responseTopic } })
      await handled(1)
      expect(published()).toEqual([])
    },
  )

  it('responds to the envelope of the built-in transport', async () => {
    deliver('sum', { pattern: 'sum', data: [4, 5], id: 'abc' }, { qos: 1, messageId: 1 })
    const reply = await connection.expect('publish')
    expect(reply).toMatchObject({ topic: 'sum/reply', qos: 1 })
    expect(JSON.parse(reply.payload.toString())).toEqual({ response: 9, isDisposed: true, id: 'abc' })
    connection.send({ cmd: 'puback', messageId: reply.messageId ?? 0 })
    await connection.expect('puback')
  })

  it.each([
    ['without pattern', { data: [1], id: 'a' }],
    ['with more than the envelope has', { pattern: 'sum', data: [1], id: 'a', extra: 1 }],
    ['with an id that is no text', { pattern: 'sum', data: [1], id: 1 }],
  ])('treats an object %s as the payload', async (_name, payload) => {
    deliver('sum', payload)
    await handled(1)
    expect(published()).toEqual([])
    expect(started.mqtt.stats().inbound.failed).toBe(1)
  })
})

describe('the log', () => {
  it('is not flooded by messages that a pipe refuses, or by long topics', async () => {
    const topic = `pipeline/${'x'.repeat(60_000)}`
    for (let index = 0; index < 500; index += 1) deliver(topic, 'no number')
    await handled(500)
    const lines = started.logger.ofMqtt.filter(line => line.startsWith('error'))
    expect(lines).toHaveLength(1)
    expect(Math.max(...lines.map(line => line.length))).toBeLessThan(500)
  })

  it('contains the error of a processing end hook', async () => {
    const transport = started.app.get(MqttTransport)
    transport.setOnProcessingEndHook(() => {
      throw new Error('a bug')
    })
    deliver('two', 1, { qos: 1, messageId: 1 })
    await connection.expect('puback')
    expect(started.logger.ofMqtt).toContain('error [Mqtt] the processing end hook failed: a bug')
  })
})
