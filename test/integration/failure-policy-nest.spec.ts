import {
  type ArgumentsHost,
  Catch,
  Controller,
  type ExceptionFilter,
  type RpcExceptionFilter,
  UseFilters,
} from '@nestjs/common'
import { Ctx, EventPattern, MessagePattern, Payload, Transport } from '@nestjs/microservices'
import { type Observable, of, throwError } from 'rxjs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { deadLetter, handle, type MqttContext, type PublishPacket } from '../../src/index.js'
import { type PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { startMicroservice } from '../support/nest-app.js'
import { acks, countOf, json, VERSIONS } from '../support/subscriber-on-peer.js'

const calls: string[] = []
const contexts: MqttContext[] = []
const RETRIES = { attempts: 2, delayMs: [0] }

@Catch()
class DecidingFilter implements RpcExceptionFilter {
  catch(exception: unknown): Observable<unknown> {
    calls.push(`filter ${exception instanceof Error ? exception.message : String(exception)}`)
    return of('settled')
  }
}

@Catch()
class ThrowingFilter implements ExceptionFilter {
  catch(exception: unknown, _host: ArgumentsHost): Observable<never> {
    calls.push('filter')
    return throwError(() => exception)
  }
}

@Controller()
class PolicyController {
  @EventPattern<string>('observable', Transport.MQTT, handle({ retries: RETRIES }))
  observable(@Ctx() context: MqttContext): Observable<never> {
    calls.push(`attempt ${context.attempt}`)
    return throwError(() => new Error('errored'))
  }

  @EventPattern<string>('late', Transport.MQTT, handle({ retries: RETRIES }))
  late(@Ctx() context: MqttContext): Observable<string> {
    calls.push(`attempt ${context.attempt}`)
    return context.attempt < 3 ? throwError(() => 'no error at all') : of('done')
  }

  @UseFilters(DecidingFilter)
  @EventPattern<string>(
    'decided',
    Transport.MQTT,
    handle({ retries: RETRIES, onFailure: deadLetter('dead') }),
  )
  decided(): never {
    calls.push('ran')
    throw new Error('broken')
  }

  @UseFilters(ThrowingFilter)
  @EventPattern<string>('passed', Transport.MQTT, handle({ onFailure: deadLetter('dead') }))
  passed(): never {
    throw new Error('broken')
  }

  @MessagePattern('ask', Transport.MQTT, handle({ retries: RETRIES, onFailure: deadLetter('dead') }))
  ask(@Payload() question: unknown): string {
    calls.push('asked')
    if (question === 'bad') throw new Error('no response')
    return 'response'
  }

  @EventPattern<string>('manual', Transport.MQTT, handle({ ack: 'manual' }))
  manual(@Ctx() context: MqttContext): void {
    contexts.push(context)
  }

  @EventPattern<string>('slow', Transport.MQTT, handle({ timeoutMs: 1 }))
  slow(@Ctx() context: MqttContext): Promise<never> {
    contexts.push(context)
    return new Promise<never>(() => {})
  }
}

describe.each(VERSIONS)('MQTT %i, through Nest', protocolVersion => {
  let started: Awaited<ReturnType<typeof startMicroservice>>
  let connection: PeerConnection

  beforeEach(async () => {
    calls.length = 0
    contexts.length = 0
    const peer = new ScriptedPeer()
    const starting = startMicroservice(
      { createStream: peer.createStream, protocolVersion, drainTimeoutMs: 10, keepalive: 0 },
      { controllers: [PolicyController] },
    )
    connection = await peer.accept()
    const packets = protocolVersion === 5 ? 7 : 1
    for (let packet = 0; packet < packets; packet += 1) await connection.grant()
    started = await starting
  })
  afterEach(() => started.app.close())

  const deliver = (topic: string, value: unknown, fields: Partial<PublishPacket> = {}) =>
    connection.send(json(topic, value, { qos: 1, messageId: 5, ...fields }))
  const acknowledged = () => eventually(() => acks(connection).length === 1)
  const inbound = () => started.mqtt.stats().inbound

  it('an Observable that errors is a failure and is retried', async () => {
    deliver('observable', 1)
    await acknowledged()
    expect(calls).toEqual(['attempt 1', 'attempt 2', 'attempt 3'])
    expect(inbound()).toMatchObject({ handled: 1, failed: 1 })
    expect(started.logger.ofMqtt.filter(line => line.startsWith('error'))).toEqual([
      'error [Mqtt] the handler of "observable" failed for a message on "observable": errored',
    ])
  })

  it('a successful retry is not a failure', async () => {
    deliver('late', 1)
    await acknowledged()
    expect(calls).toEqual(['attempt 1', 'attempt 2', 'attempt 3'])
    expect(inbound()).toMatchObject({ handled: 1, failed: 0 })
    expect(started.logger.ofMqtt.filter(line => line.startsWith('error'))).toEqual([])
  })

  it('an exception filter that returns a value decides: acknowledged, no retry, no dead letter', async () => {
    deliver('decided', 1)
    await acknowledged()
    expect(calls).toEqual(['ran', 'filter broken'])
    expect(inbound()).toMatchObject({ handled: 1, failed: 0, deadLettered: 0 })
    expect(countOf(connection, 'publish')).toBe(0)
  })

  it('if an exception filter errors, the policy decides', async () => {
    deliver('passed', { secret: 1 })
    const letter = await connection.expect('publish')
    expect(letter).toMatchObject({ topic: 'dead', qos: 1 })
    expect(calls).toEqual(['filter'])
    connection.send({ cmd: 'puback', messageId: letter.messageId ?? 0, reasonCode: 0 })
    await acknowledged()
    expect(inbound()).toMatchObject({ handled: 0, deadLettered: 1 })
  })

  it('a request whose handler fails receives the error as its response, without a retry or a dead letter', async () => {
    if (protocolVersion === 5) deliver('ask', 'bad', { properties: { responseTopic: 'responses' } })
    else deliver('ask', { pattern: 'ask', data: 'bad', id: 'x' })
    const reply = await connection.expect('publish')
    expect(reply.topic).toBe(protocolVersion === 5 ? 'responses' : 'ask/reply')
    expect(reply.payload.toString()).toContain('"status":"error"')
    connection.send({ cmd: 'puback', messageId: reply.messageId ?? 0, reasonCode: 0 })
    await acknowledged()
    expect(calls).toEqual(['asked'])
    expect(countOf(connection, 'publish')).toBe(1)
    expect(inbound()).toMatchObject({ handled: 1, deadLettered: 0 })
  })

  it('a plain message to the same handler is retried, and becomes a dead letter', async () => {
    deliver('ask', 'bad')
    const letter = await connection.expect('publish')
    expect(letter.topic).toBe('dead')
    expect(calls).toEqual(['asked', 'asked', 'asked'])
    connection.send({ cmd: 'puback', messageId: letter.messageId ?? 0, reasonCode: 0 })
    await acknowledged()
  })

  it('ack() of the context acknowledges after the handler has returned', async () => {
    deliver('manual', 1)
    await eventually(() => contexts.length === 1)
    deliver('late', 1, { messageId: 6 })
    await eventually(() => inbound().handled === 1)
    expect(acks(connection)).toEqual([])
    contexts[0]?.ack()
    await eventually(() => acks(connection).length === 2)
    expect(acks(connection)).toEqual([5, 6])
  })

  it('the signal of the context is aborted at the time limit', async () => {
    deliver('slow', 1)
    await acknowledged()
    expect(contexts[0]?.signal.reason).toMatchObject({ code: 'TIMEOUT' })
    expect(contexts[0]?.attempt).toBe(1)
    expect(inbound()).toMatchObject({ handled: 1, failed: 1 })
  })
})

@Controller()
class DisconnectingController {
  @EventPattern<string>('x', Transport.MQTT, handle({ onFailure: 'disconnect' }))
  on(): void {}
}

it('onFailure "disconnect" on a clean session prevents the application from starting', async () => {
  const peer = new ScriptedPeer()
  const parts = { controllers: [DisconnectingController] }
  await expect(startMicroservice({ createStream: peer.createStream }, parts)).rejects.toMatchObject({
    code: 'INVALID_OPTION',
    message: expect.stringContaining('handler of "x": onFailure "disconnect"'),
  })
})
