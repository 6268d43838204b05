import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { Ctx, EventPattern, MessagePattern } from '@nestjs/microservices'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { MqttContext } from '../../src/index.js'
import { Asked, publishesOf, responseTo } from '../support/asking.js'
import { eventually } from '../support/eventually.js'
import { respondingApp } from '../support/responding-app.js'
import { json } from '../support/subscriber-on-peer.js'

const seen: unknown[] = []
beforeEach(() => {
  seen.length = 0
})

@Controller()
class EverythingController {
  @EventPattern<string>('#')
  onAny(@Ctx() context: MqttContext): void {
    seen.push(['#', context.topic])
  }

  @EventPattern<string>('+/reply')
  onReplies(@Ctx() context: MqttContext): void {
    seen.push(['+/reply', context.topic])
  }

  @EventPattern<string>('exact/reply')
  onExact(@Ctx() context: MqttContext): void {
    seen.push(['exact/reply', context.topic])
  }

  @MessagePattern('sum')
  sum(): number {
    return 3
  }

  @MessagePattern('exact')
  exact(): number {
    return 4
  }
}

@Controller()
class WildcardController {
  @EventPattern<string>('#')
  onAny(@Ctx() context: MqttContext): void {
    seen.push(['#', context.topic])
  }

  @MessagePattern('sum')
  sum(): number {
    return 3
  }
}

let on: Awaited<ReturnType<typeof respondingApp>>
afterEach(() => on.app.close())

/** An event that comes behind everything else. */
async function lastEvent(): Promise<void> {
  on.connection.send(json('last', 1))
  await eventually(() => seen.some(entry => Array.isArray(entry) && entry[1] === 'last'))
}

const expectNoWarning = (): void =>
  expect(on.logger.ofMqtt.filter(line => line.startsWith('warn') || line.startsWith('error'))).toEqual([])

const ENVELOPE = { pattern: 'sum', data: 1, id: 'a' }
const REPLY = { response: 3, isDisposed: true, id: 'a' }

describe.each([4, 5] as const)('a wildcard handler on MQTT version %i', protocolVersion => {
  it('does not receive the replies that this application sends in the envelope', async () => {
    on = await respondingApp(2, { controllers: [WildcardController] }, { protocolVersion })
    on.connection.send(json('sum', ENVELOPE))
    await on.connection.find('publish')
    // The broker sends it to everybody who subscribes, and that is also this application.
    on.connection.send(json('sum/reply', REPLY))
    await lastEvent()
    expect(seen).toEqual([
      ['#', 'sum'],
      ['#', 'last'],
    ])
    expect(on.mqtt.stats().inbound).toMatchObject({ unmatched: 0, handled: 3, failed: 0 })
    expectNoWarning()
  })

  it('does not receive the replies to requests of this application in the envelope', async () => {
    on = await respondingApp(2, { controllers: [WildcardController] }, { protocolVersion })
    const asked = new Asked(on.mqtt.request('elsewhere', 1, { protocol: 'nest' }))
    await on.connection.grant()
    const { payload } = await on.connection.find('publish')
    const { id } = JSON.parse(payload.toString())
    on.connection.send(json('elsewhere/reply', { response: 'own', isDisposed: true, id }))
    on.connection.send(json('elsewhere/reply', { response: 'of others', isDisposed: true, id: 'other' }))
    await lastEvent()
    expect(asked.value).toBe('own')
    expect(seen).toEqual([['#', 'last']])
    expectNoWarning()
  })

  it('receives messages of others on a topic that ends like a reply topic', async () => {
    on = await respondingApp(2, { controllers: [WildcardController] }, { protocolVersion })
    on.connection.send(json('others/reply', 1))
    await lastEvent()
    expect(seen).toEqual([
      ['#', 'others/reply'],
      ['#', 'last'],
    ])
  })
})

describe('the private response topic', () => {
  it('is not received by a wildcard handler, even that of another connection', async () => {
    on = await respondingApp(2, { controllers: [WildcardController] })
    const asked = new Asked(on.mqtt.request('elsewhere', 1))
    await on.connection.grant()
    const request = await on.connection.find('publish')
    on.connection.send(responseTo(request, { value: 'own' }))
    on.connection.send(json('nestjs-mqtt/responses/other', 1))
    await lastEvent()
    expect(asked.value).toBe('own')
    expect(seen).toEqual([['#', 'last']])
    expect(on.mqtt.stats().requests.unexpectedResponses).toBe(0)
    expectNoWarning()
  })

  it('ends where its prefix ends', async () => {
    on = await respondingApp(2, { controllers: [WildcardController] })
    on.connection.send(json('nestjs-mqtt/responses-of-others', 1))
    await lastEvent()
    expect(seen).toHaveLength(2)
  })
})

it('a handler that names the reply topic receives the replies, also with a wildcard before its end', async () => {
  on = await respondingApp(5, { controllers: [EverythingController] })
  for (const topic of ['sum', 'exact']) on.connection.send(json(topic, { ...ENVELOPE, pattern: topic }))
  await eventually(() => publishesOf(on.connection).length === 2)
  seen.length = 0
  for (const topic of ['sum/reply', 'exact/reply']) on.connection.send(json(topic, REPLY))
  await lastEvent()
  expect(seen.toSorted()).toEqual([
    ['#', 'last'],
    ['+/reply', 'exact/reply'],
    ['+/reply', 'sum/reply'],
    ['exact/reply', 'exact/reply'],
  ])
})
