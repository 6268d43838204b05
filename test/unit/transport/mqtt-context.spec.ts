import { MqttContext as NestMqttContext } from '@nestjs/microservices'
import { describe, expect, it } from 'vitest'
import type { PublishPacket, PublishProperties } from '../../../src/client/connection/link.js'
import { parseTopicTemplate } from '../../../src/core/topic/topic-filter.js'
import { MqttContext } from '../../../src/transport/mqtt.context.js'
import { loneAttempt } from '../../support/handler-runs.js'

function contextOf(properties?: PublishProperties, metadata?: unknown): MqttContext {
  const packet: PublishPacket = {
    cmd: 'publish',
    topic: 'devices/7/rate',
    payload: '',
    qos: 0,
    dup: false,
    retain: false,
  }
  const received = properties === undefined ? packet : { ...packet, properties }
  const template = parseTopicTemplate('devices/+id/rate')
  return new MqttContext(received, template, loneAttempt(), metadata)
}

describe('the context of a handler', () => {
  it("has the methods of Nest's own context, and the pattern as a name that does not depend on the topic", () => {
    const context = contextOf()
    expect(context.getTopic()).toBe('devices/7/rate')
    expect(context.getPacket().topic).toBe('devices/7/rate')
    expect(context.getArgs()).toEqual(['devices/7/rate', context.getPacket()])
    expect(context.getPattern()).toBe('devices/+id/rate')
    expect(context).not.toBeInstanceOf(NestMqttContext)
  })
})

describe('getMetadata()', () => {
  it('is undefined for a message without any', () => {
    expect(contextOf().getMetadata()).toBeUndefined()
    expect(contextOf({ contentType: 'text/plain' }).getMetadata()).toBeUndefined()
  })

  it('reads the User Properties, the first of each name', () => {
    const userProperties = { 'x-request-id': 'r1', tag: ['a', 'b'], stream: 'no' }
    expect(contextOf({ userProperties }).getMetadata()).toEqual({
      'x-request-id': 'r1',
      tag: 'a',
      stream: 'no',
    })
  })

  it('omits the properties of the request protocol', () => {
    const properties = { responseTopic: 'r', userProperties: { stream: 'true', trace: 't1' } }
    expect(contextOf(properties).getMetadata()).toEqual({ trace: 't1' })
  })

  it('prefers the metadata of the envelope, and uses only its strings', () => {
    const metadata = { trace: 't2', depth: 3, nested: { a: 'b' } }
    expect(contextOf({ userProperties: { trace: 't1' } }, metadata).getMetadata()).toEqual({ trace: 't2' })
  })

  it.each([5, 'text', null, [], {}])('treats %j in an envelope as no metadata', metadata => {
    expect(contextOf(undefined, metadata).getMetadata()).toBeUndefined()
  })

  it('does not give access to a prototype', () => {
    const metadata: unknown = JSON.parse('{"__proto__":"x","a":"b"}')
    const read = contextOf(undefined, metadata).getMetadata()
    expect(Object.getPrototypeOf(read)).toBe(Object.prototype)
    expect(read).toHaveProperty('a', 'b')
  })
})
