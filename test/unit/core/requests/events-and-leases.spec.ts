import { describe, expect, it } from 'vitest'
import { MqttError } from '../../../../src/core/errors.js'
import type { PublishPacket } from '../../../../src/core/protocol/packets.js'
import {
  abortedError,
  blockedError,
  isAllowedBy,
  leaseOf,
  type ResponseTarget,
  readRequest,
  requestFailure,
  responseTarget,
  tooManyError,
  unwrapEvent,
} from '../../../../src/core/requests/request-rules.js'

function packet(properties?: PublishPacket['properties']): PublishPacket {
  const plain: PublishPacket = { cmd: 'publish', topic: 'a', payload: '', qos: 0, dup: false, retain: false }
  return properties === undefined ? plain : { ...plain, properties }
}

describe('the envelope of a request', () => {
  const envelope = { pattern: 'a', data: 1, id: 'x' }

  it('may have metadata, which are passed on', () => {
    expect(readRequest(packet(), { ...envelope, metadata: { trace: 1 } })).toEqual({
      data: 1,
      target: { kind: 'nest', topic: 'a/reply', id: 'x' },
      metadata: { trace: 1 },
    })
    expect(readRequest(packet(), envelope)).not.toHaveProperty('metadata')
    expect(readRequest(packet(), { ...envelope, metadata: undefined })).not.toHaveProperty('metadata')
  })

  it.each([
    [{ other: 'a', data: 1, id: 'x' }],
    [{ pattern: 'a', other: 1, id: 'x' }],
    [{ pattern: 'a', data: 1, other: 'x' }],
    [{ pattern: 'a', data: 1, metadata: 2, other: 'x' }],
    [{ pattern: 'a', data: 1, id: 'x', metadata: 2, other: 3 }],
    [Object.assign(Object.create({ id: 'x' }), { pattern: 'a' })],
  ])('needs exactly its own keys, unlike %j', decoded => {
    expect(readRequest(packet(), decoded)).toEqual({ data: decoded, target: undefined })
  })
})

describe('a request for a stream', () => {
  it('has the User Property stream with the value "true"', () => {
    const of = (stream: string) => responseTarget(packet({ responseTopic: 'r', userProperties: { stream } }))
    expect(of('true')).toEqual({ kind: 'mqtt5', topic: 'r', correlationData: undefined, isStream: true })
    for (const other of ['', 'false', 'TRUE', '1']) expect(of(other)).not.toHaveProperty('isStream')
  })
})

describe('an event of the built-in emit()', () => {
  const noRoute = (): unknown => undefined

  it.each([
    ['the topic as its pattern', { pattern: 'a', data: 1 }, { data: 1 }],
    ['no data', { pattern: 'a' }, { data: undefined }],
    ['metadata', { pattern: 'a', data: 1, metadata: 2 }, { data: 1, metadata: 2 }],
    ['metadata without data', { pattern: 'a', metadata: 2 }, { data: undefined, metadata: 2 }],
    ['metadata that are undefined', { pattern: 'a', data: 1, metadata: undefined }, { data: 1 }],
  ])('is unwrapped with %s', (_what, decoded, event) => {
    expect(unwrapEvent('a', decoded, noRoute)).toStrictEqual(event)
  })

  it('is unwrapped with a pattern whose route is the topic', () => {
    const routeOf = (pattern: unknown): string => JSON.stringify(pattern)
    const decoded = { pattern: { cmd: 'x' }, data: 1 }
    expect(unwrapEvent('{"cmd":"x"}', decoded, routeOf)).toEqual({ data: 1 })
    expect(unwrapEvent('{"cmd":"y"}', decoded, routeOf)).toEqual({ data: decoded })
  })

  it.each([
    [null],
    [undefined],
    ['a'],
    [7],
    [['pattern']],
    [Object.assign([], { pattern: 'a' })],
    [{ data: 1 }],
    [{ pattern: 'b', data: 1 }],
    [{ pattern: 'a', data: 1, other: 2 }],
    [{ pattern: 'a', data: 1, metadata: 2, other: 3 }],
    [{ pattern: 'a', other: 1 }],
    [Object.assign(Object.create(null), { data: 1 })],
  ])('is not unwrapped if it is %j', decoded => {
    expect(unwrapEvent('a', decoded, noRoute)).toStrictEqual({ data: decoded })
  })
})

describe('the lease of a request', () => {
  const single: ResponseTarget = { kind: 'mqtt5', topic: 'r', correlationData: undefined }
  const stream: ResponseTarget = { ...single, isStream: true }
  const of = (target: ResponseTarget, lease?: string | string[], messageExpiryInterval?: number) =>
    leaseOf(
      {
        properties: {
          ...(lease === undefined ? {} : { userProperties: { lease } }),
          ...(messageExpiryInterval === undefined ? {} : { messageExpiryInterval }),
        },
      },
      target,
    )
  const NONE = { firstLeaseMs: undefined, leaseMs: undefined }

  it('of the envelope does not exist', () => {
    expect(of({ kind: 'nest', topic: 'r', id: 'x' }, '5', 7)).toEqual(NONE)
  })

  it('for one response is its Message Expiry Interval', () => {
    expect(of(single, '5', 7)).toEqual({ firstLeaseMs: 7_000, leaseMs: undefined })
    expect(of(single, undefined, 0)).toEqual({ firstLeaseMs: 0, leaseMs: undefined })
    expect(of(single, '5')).toEqual(NONE)
    expect(leaseOf({}, single)).toEqual(NONE)
  })

  it('of a stream is the interval of its renewals, and until the first response at least its Message Expiry Interval', () => {
    expect(of(stream, '5', 7)).toEqual({ firstLeaseMs: 7_000, leaseMs: 5_000 })
    expect(of(stream, '5', 3)).toEqual({ firstLeaseMs: 5_000, leaseMs: 5_000 })
    expect(of(stream, '5')).toEqual({ firstLeaseMs: 5_000, leaseMs: 5_000 })
    expect(leaseOf({}, stream)).toEqual(NONE)
  })

  it.each(['1', '3600'])('of a stream may be %s s', lease => {
    expect(of(stream, lease).leaseMs).toBe(Number(lease) * 1_000)
  })

  it.each(['0', '3601', '99999', '123456', '-1', '1.5', 'x5', '5x', '', ' 5'])(
    'of a stream does not exist with the value %j',
    lease => {
      expect(of(stream, lease, 7)).toEqual(NONE)
    },
  )

  it('of a stream does not exist with several values', () => {
    expect(of(stream, ['5', '6'])).toEqual(NONE)
  })
})

describe('the failure of a request', () => {
  it.each([
    { status: 'sent' },
    { status: 'stored', messageId: 'm' },
    { status: 'acknowledged', reasonCode: 0 },
  ] as const)('is none if its publish is $status', outcome => {
    expect(requestFailure('a', outcome)).toBeUndefined()
  })

  const cause = new MqttError('CONNECTION_LOST', 'cut')
  it.each([
    [
      { status: 'acknowledged', reasonCode: 0x10 },
      { code: 'NO_RESPONDER', message: 'nobody subscribes to "a"', reasonCode: 0x10 },
    ],
    [
      { status: 'refused', reasonCode: 0x87 },
      { code: 'NOT_SENT', message: 'the broker refused the request on "a"', reasonCode: 0x87 },
    ],
    [
      { status: 'refused', reasonCode: 0x97, reasonString: 'quota' },
      { code: 'NOT_SENT', message: 'the broker refused the request on "a": quota', reasonCode: 0x97 },
    ],
    [
      { status: 'dropped', reason: 'backlog' },
      { code: 'NOT_SENT', message: 'the request on "a" was dropped: backlog' },
    ],
    [
      { status: 'lost', cause },
      { code: 'CONNECTION_LOST', message: 'the request on "a" was lost', cause },
    ],
  ] as const)('is an error if its publish ends as %j', (outcome, error) => {
    expect(requestFailure('a', outcome)).toMatchObject(error)
  })

  it('by a limit or a signal says what to do, or keeps the reason', () => {
    expect(blockedError('a')).toMatchObject({
      code: 'REQUEST_BLOCKED',
      message: expect.stringMatching(/^the request on "a" is blocked: .*raise inbound\.maxInFlight/),
    })
    expect(tooManyError(7)).toMatchObject({
      code: 'TOO_MANY_REQUESTS',
      message: expect.stringContaining('requests.maxOpen is 7; raise it'),
    })
    const { signal } = { signal: AbortSignal.abort('enough') }
    expect(abortedError('a', signal)).toMatchObject({
      code: 'ABORTED',
      message: 'the request on "a" was aborted',
      cause: 'enough',
    })
    expect(abortedError('a', undefined).cause).toBeUndefined()
  })
})

describe('a topic for responses that a requester chose', () => {
  it('is allowed without a function, or if it returns true', () => {
    const asked: string[] = []
    expect(isAllowedBy(undefined, 'r')).toBe(true)
    expect(isAllowedBy(topic => asked.push(topic) > 0, 'r')).toBe(true)
    expect(asked).toEqual(['r'])
  })

  it('is rejected if the function returns anything else, or throws', () => {
    expect(isAllowedBy(() => false, 'r')).toBe(false)
    // Seam: a function without types may return any value.
    expect(isAllowedBy((() => 'yes') as unknown as () => boolean, 'r')).toBe(false)
    const throwing = (): boolean => {
      throw new Error('no')
    }
    expect(isAllowedBy(throwing, 'r')).toBe(false)
  })
})
