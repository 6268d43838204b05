import { type Duplex, PassThrough } from 'node:stream'
import { describe, expectTypeOf, it } from 'vitest'
import {
  type BackoffOptions,
  type CodecOption,
  type HandlerOptions,
  handle,
  type InboxStore,
  isMqttError,
  type KeyedMessage,
  type MessagesOptions,
  MqttError,
  type MqttErrorCode,
  type MqttMessage,
  type MqttModuleOptions,
} from '../../src/index.js'

const take = (_options: MqttModuleOptions): void => {}

describe('MqttModuleOptions', () => {
  it('accepts the examples of the guide', () => {
    take({ url: 'mqtt://localhost:1883' })
    take({ createStream: (): Duplex => new PassThrough() })
    take({
      url: 'mqtts://broker:8883',
      connect: 'background',
      protocolVersion: 5,
      reconnect: { delayMs: { min: 1, max: 2, jitter: 'decorrelated' }, resetAfterMs: 1 },
      inbound: { concurrency: 1, maxInFlight: 1, maxQueued: 1 },
      outbound: { maxInFlight: 1 },
      drainTimeoutMs: 1,
      codec: 'text',
      sharedGroup: 'g',
      variables: { site: 'berlin' },
      clean: false,
      clientId: 'c',
      localAddress: '192.0.2.7',
      refusedSubscription: 'warn',
    })
    take({ url: ['mqtt+srv://example.com', 'mqtts://broker:8883'] })
    take({ url: 'mqtt://a', credentials: () => ({ username: 'u', password: Buffer.from('p') }) })
    take({
      url: 'wss://a',
      credentials: async () => ({ ca: 'ca', cert: 'c', key: 'k', headers: { a: 'b' } }),
    })
  })

  it('accepts options of mqtt under their own names', () => {
    take({
      username: 'u',
      password: Buffer.from('p'),
      ca: ['ca'],
      cert: 'cert',
      key: 'key',
      servername: 'broker.example',
      keepalive: 30,
      will: { topic: 'gone', payload: Buffer.alloc(0), qos: 1, retain: true },
      properties: { sessionExpiryInterval: 60 },
    })
  })

  it('has only readonly, optional fields', () => {
    expectTypeOf<Record<never, never>>().toExtend<MqttModuleOptions>()
    const options: MqttModuleOptions = { url: 'mqtt://h' }
    // @ts-expect-error readonly
    options.url = 'mqtt://other'
  })

  it('refuses unknown keys', () => {
    // @ts-expect-error unknown
    take({ nonsense: 1 })
    // @ts-expect-error misspelled
    take({ drainTimeout: 1 })
    // @ts-expect-error misspelled in a group
    take({ inbound: { maxInflight: 1 } })
    // @ts-expect-error belongs to inbound
    take({ outbound: { concurrency: 1 } })
    // @ts-expect-error unknown in the delay
    take({ reconnect: { delayMs: { factor: 2 } } })
  })

  it('refuses options of mqtt that this package owns', () => {
    // @ts-expect-error owned
    take({ reconnectPeriod: 1_000 })
    // @ts-expect-error owned
    take({ resubscribe: true })
    // @ts-expect-error owned
    take({ queueQoSZero: true })
    // @ts-expect-error owned
    take({ manualConnect: true })
    // @ts-expect-error owned
    take({ protocolId: 'MQTT' })
    // @ts-expect-error the url says it
    take({ host: 'h' })
  })

  it('refuses wrong values', () => {
    // @ts-expect-error a url is a text
    take({ url: new URL('mqtt://a') })
    // @ts-expect-error and so is each of a list
    take({ url: ['mqtt://a', 1883] })
    // @ts-expect-error credentials come by a function
    take({ credentials: { username: 'u' } })
    // @ts-expect-error credentials are what an attempt is made with
    take({ credentials: () => ({ clientId: 'c' }) })
    // @ts-expect-error no such choice
    take({ refusedSubscription: 'ignore' })
    // @ts-expect-error no such verdict
    take({ reconnect: { verdict: () => 'give-up' } })
    // @ts-expect-error 3.1 is not spoken
    take({ protocolVersion: 3 })
    // @ts-expect-error no such mode
    take({ connect: 'lazy' })
    // @ts-expect-error no such codec
    take({ codec: 'xml' })
    // @ts-expect-error a codec has two functions
    take({ codec: { encode: () => Buffer.alloc(0) } })
    // @ts-expect-error a delay is a list, a function or an object
    take({ reconnect: { delayMs: 500 } })
    // @ts-expect-error no such jitter
    take({ reconnect: { delayMs: { jitter: 'half' } } })
    // @ts-expect-error variables are texts
    take({ variables: { n: 1 } })
  })

  it('passes the consecutive failures and the cause to a delay function', () => {
    take({
      reconnect: {
        delayMs: (attempt, cause) => {
          expectTypeOf(attempt).toEqualTypeOf<number>()
          expectTypeOf(cause).toEqualTypeOf<MqttError>()
          return attempt
        },
      },
    })
    expectTypeOf<BackoffOptions['jitter']>().toEqualTypeOf<'full' | 'decorrelated' | 'none' | undefined>()
  })
})

describe('the verdict on the end of a connection', () => {
  it('is returned by the application from the cause, or undefined to apply the rules', () => {
    take({
      reconnect: {
        verdict: cause => {
          expectTypeOf(cause).toEqualTypeOf<MqttError>()
          expectTypeOf(cause.serverReference).toEqualTypeOf<string | undefined>()
          return cause.reasonCode === 0x8e ? 'retry' : undefined
        },
      },
      onStopped: cause => expectTypeOf(cause).toEqualTypeOf<MqttError>(),
    })
    type Verdicts = ReturnType<NonNullable<NonNullable<MqttModuleOptions['reconnect']>['verdict']>>
    expectTypeOf<Verdicts>().toEqualTypeOf<
      'retry' | 'retry-with-fresh-credentials' | 'go-elsewhere' | 'stop' | undefined
    >()
  })
})

describe('HandlerOptions', () => {
  it('are known by name', () => {
    expectTypeOf(
      handle({ qos: 0, codec: 'bytes', sharedGroup: 'g', noLocal: true, retainHandling: 2 }),
    ).toEqualTypeOf<HandlerOptions>()
    expectTypeOf<HandlerOptions['codec']>().toEqualTypeOf<CodecOption | undefined>()
  })

  it('refuse unknown options and wrong values', () => {
    // @ts-expect-error no such QoS
    expectTypeOf(handle).toBeCallableWith({ qos: 3 })
    // @ts-expect-error unknown
    expectTypeOf(handle).toBeCallableWith({ retain: true })
    // @ts-expect-error no flag
    expectTypeOf(handle).toBeCallableWith({ noLocal: 1 })
    // @ts-expect-error no such value
    expectTypeOf(handle).toBeCallableWith({ retainHandling: 3 })
  })
})

describe('the option "dedupe" of a handler', () => {
  interface Order {
    readonly number: string
  }

  it('takes the key from the message-id, or from a function that names the type of the payload', () => {
    handle({ dedupe: { by: 'message-id' } })
    handle({ dedupe: { by: ({ payload }: KeyedMessage<Order>) => payload.number } })
    handle({ dedupe: { by: ({ payload }: MqttMessage<Order>) => payload.number } })
    handle({ dedupe: { by: ({ topic, params }) => `${topic} ${params['id']}` } })
    handle({ dedupe: { by: ({ properties }) => properties.userProperties?.['key']?.toString() } })
  })

  it('refuses other keys, an asynchronous function, and an unnamed payload', () => {
    // @ts-expect-error no such key
    handle({ dedupe: { by: 'payload' } })
    // @ts-expect-error a key is a string
    handle({ dedupe: { by: ({ payload }: KeyedMessage<number>) => payload } })
    // @ts-expect-error not asynchronous
    handle({ dedupe: { by: async ({ topic }) => topic } })
    // @ts-expect-error the payload has no type unless the function names one
    handle({ dedupe: { by: ({ payload }) => payload.number } })
    // @ts-expect-error by is missing
    handle({ dedupe: {} })
    expectTypeOf<MessagesOptions>().not.toHaveProperty('dedupe')
  })

  it('takes a store whose calls may be asynchronous', () => {
    const store: InboxStore = { has: async () => false, add: () => {} }
    handle({ dedupe: { by: 'message-id', store, maxAgeMs: 1, maxEntries: 1, scope: 'alarms' } })
    // @ts-expect-error it must be able to remember
    handle({ dedupe: { by: 'message-id', store: { has: () => false } } })
  })
})

describe('isMqttError', () => {
  it('narrows to the error of this package', () => {
    const caught: unknown = new MqttError('TIMEOUT', 'x')
    if (isMqttError(caught, 'TIMEOUT')) {
      expectTypeOf(caught).toEqualTypeOf<MqttError>()
      expectTypeOf(caught.code).toEqualTypeOf<MqttErrorCode>()
      expectTypeOf(caught.reasonCode).toEqualTypeOf<number | undefined>()
    }
  })

  it('accepts only known codes', () => {
    // @ts-expect-error no such code
    isMqttError(null, 'TIME_OUT')
    // @ts-expect-error no such code
    expectTypeOf(MqttError).toBeConstructibleWith('TIME_OUT', 'x')
    expectTypeOf<'CONNECT_REFUSED'>().toExtend<MqttErrorCode>()
  })
})
