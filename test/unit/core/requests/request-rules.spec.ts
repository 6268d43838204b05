import { describe, expect, it } from 'vitest'
import type { PublishPacket } from '../../../../src/client/connection/link.js'
import { readRequest, responseTarget } from '../../../../src/core/requests/request-rules.js'

function packet(topic: string, properties?: PublishPacket['properties']): PublishPacket {
  const plain: PublishPacket = { cmd: 'publish', topic, payload: '', qos: 0, dup: false, retain: false }
  return properties === undefined ? plain : { ...plain, properties }
}

const envelope = { pattern: 'devices/7', data: { rate: 5 }, id: 'x1' }

describe('a request on MQTT 5', () => {
  const correlationData = Buffer.from('c1')

  it('has its Response Topic and its Correlation Data as the target', () => {
    const request = packet('devices/7', { responseTopic: 'replies/1', correlationData })
    expect(readRequest(request, { rate: 5 })).toEqual({
      data: { rate: 5 },
      target: { kind: 'mqtt5', topic: 'replies/1', correlationData },
    })
  })

  it('needs no Correlation Data', () => {
    expect(readRequest(packet('a', { responseTopic: 'r' }), 1).target).toEqual({
      kind: 'mqtt5',
      topic: 'r',
      correlationData: undefined,
    })
  })

  it('treats an envelope as its data if it has a Response Topic', () => {
    expect(readRequest(packet('a', { responseTopic: 'r' }), envelope)).toEqual({
      data: envelope,
      target: { kind: 'mqtt5', topic: 'r', correlationData: undefined },
    })
  })

  it.each([
    ['no topic at all', ''],
    ['a wildcard', 'replies/+'],
    ['a wildcard for everything', '#'],
    ['a NUL', 'replies/\u0000'],
    ['a topic of the broker', '$SYS/config'],
    ['a Shared Subscription', '$share/g/a'],
    ['the topic "$"', '$'],
    ['more bytes than a topic can have', 'a'.repeat(65_536)],
  ])('has no target on %s, but is handled', (_what, responseTopic) => {
    expect(readRequest(packet('a', { responseTopic, correlationData }), 1)).toEqual({
      data: 1,
      target: undefined,
    })
  })

  it('with a refused Response Topic receives no reply through its envelope either', () => {
    expect(readRequest(packet('a', { responseTopic: '$SYS/x' }), envelope).target).toBeUndefined()
  })

  it('needs more than Correlation Data', () => {
    expect(readRequest(packet('a', { correlationData }), 1)).toEqual({ data: 1, target: undefined })
  })

  it.each(['replies/$SYS', '/$SYS', 'a b', '温度'])('may have the response topic %j', responseTopic => {
    expect(readRequest(packet('a', { responseTopic }), 1).target?.topic).toBe(responseTopic)
  })
})

describe('responseTarget', () => {
  it('has a target without its payload, which may be unreadable', () => {
    const correlationData = Buffer.from('c1')
    expect(responseTarget(packet('a', { responseTopic: 'r', correlationData }))).toEqual({
      kind: 'mqtt5',
      topic: 'r',
      correlationData,
    })
  })

  it.each([
    [undefined],
    [{}],
    [{ responseTopic: '' }],
    [{ responseTopic: 'r/#' }],
    [{ responseTopic: '$SYS/r' }],
  ])('is undefined with the properties %j', properties => {
    expect(responseTarget(packet('a', properties))).toBeUndefined()
  })
})

describe("a request in the envelope of Nest's built-in transport", () => {
  it.each([
    ['without properties', packet('devices/7')],
    ['with other properties', packet('devices/7', { contentType: 'application/json' })],
  ])('has "<topic>/reply" and its id as the target, %s', (_what, request) => {
    expect(readRequest(request, envelope)).toEqual({
      data: { rate: 5 },
      target: { kind: 'nest', topic: 'devices/7/reply', id: 'x1' },
    })
  })

  it('may hold any data and any pattern, in any order of keys', () => {
    for (const data of [null, 0, '', false, [1], undefined]) {
      expect(readRequest(packet('a'), { id: '1', data, pattern: { cmd: 'x' } })).toEqual({
        data,
        target: { kind: 'nest', topic: 'a/reply', id: '1' },
      })
    }
  })

  it('has no target on a topic of the broker', () => {
    expect(readRequest(packet('$aws/things/7'), envelope)).toEqual({ data: { rate: 5 }, target: undefined })
  })

  it('has no target if "<topic>/reply" exceeds the maximum length', () => {
    expect(readRequest(packet('a'.repeat(65_529)), envelope).target?.kind).toBe('nest')
    expect(readRequest(packet('a'.repeat(65_530)), envelope).target?.kind).toBeUndefined()
  })
})

describe('a plain message', () => {
  it.each([
    [null],
    [undefined],
    ['text'],
    [5],
    [true],
    [{}],
    [[]],
    [{ rate: 5 }],
    [{ pattern: 'a', data: 1 }],
    [{ data: 1, id: 'x' }],
    [{ pattern: 'a', id: 'x' }],
    [{ pattern: 'a', data: 1, id: 7 }],
    [{ pattern: 'a', data: 1, id: null }],
    [{ pattern: 'a', data: 1, id: 'x', isDisposed: true }],
    [{ 'data,id': 1, pattern: 'a' }],
    [['a', 1, 'x']],
  ])('such as %j is passed to the handler unchanged, without a target', decoded => {
    const { data, target } = readRequest(packet('a'), decoded)
    expect(data).toBe(decoded)
    expect(target).toBeUndefined()
  })
})
