import { type } from 'arktype'
import * as v from 'valibot'
import { describe, expectTypeOf, it } from 'vitest'
import { z } from 'zod'
import {
  defineTopic,
  type MqttClient,
  type MqttMessage,
  type MqttMessages,
  type PublishOutcome,
  type StandardSchema,
  type TopicAddress,
  type TopicContract,
  type TopicInput,
  type TopicPayload,
  type TopicResponse,
  type TopicResponseInput,
} from '../../src/client/index.js'
import type * as nest from '../../src/index.js'

/** Accepts an ISO text on the wire and gives handlers a Date. */
const ofZod = defineTopic('devices/+deviceId/telemetry', {
  schema: z.object({ celsius: z.number(), at: z.iso.datetime().transform(text => new Date(text)) }),
})
const ofValibot = defineTopic('devices/+deviceId/telemetry', {
  schema: v.object({
    celsius: v.number(),
    at: v.pipe(
      v.string(),
      v.transform(text => new Date(text)),
    ),
  }),
})
const ofArktype = defineTopic('devices/+deviceId/telemetry', {
  schema: type({ celsius: 'number', at: type('string').pipe(text => new Date(text)) }),
})
interface In {
  celsius: number
  at: string
}
interface Out {
  celsius: number
  at: Date
}
const ask = defineTopic('devices/+deviceId/ask', {
  schema: z.object({ count: z.number() }),
  response: z.object({ ok: z.boolean().default(true) }),
})
const plain = defineTopic('site/alarm', { qos: 1 })

describe('the types of a contract', () => {
  it('come from schemas of zod, valibot and arktype', () => {
    expectTypeOf<TopicInput<typeof ofZod>>().branded.toEqualTypeOf<In>()
    expectTypeOf<TopicPayload<typeof ofZod>>().branded.toEqualTypeOf<Out>()
    expectTypeOf<TopicInput<typeof ofValibot>>().branded.toEqualTypeOf<In>()
    expectTypeOf<TopicPayload<typeof ofValibot>>().branded.toEqualTypeOf<Out>()
    expectTypeOf<TopicInput<typeof ofArktype>>().branded.toEqualTypeOf<In>()
    expectTypeOf<TopicPayload<typeof ofArktype>>().branded.toEqualTypeOf<Out>()
  })

  it('include those of the response', () => {
    expectTypeOf<TopicResponseInput<typeof ask>>().branded.toEqualTypeOf<{ ok?: boolean | undefined }>()
    expectTypeOf<TopicResponse<typeof ask>>().branded.toEqualTypeOf<{ ok: boolean }>()
    expectTypeOf<TopicPayload<typeof ask>>().branded.toEqualTypeOf<{ count: number }>()
  })

  it('are unknown without a schema', () => {
    expectTypeOf<TopicInput<typeof plain>>().toBeUnknown()
    expectTypeOf<TopicPayload<typeof plain>>().toBeUnknown()
    expectTypeOf<TopicResponse<typeof plain>>().toBeUnknown()
    expectTypeOf<TopicResponseInput<typeof plain>>().toBeUnknown()
  })

  it('are those of any library that implements Standard Schema', () => {
    const schema: StandardSchema<string, number> = {
      '~standard': { version: 1, vendor: 'own', validate: value => ({ value: Number(value) }) },
    }
    const contract = defineTopic('a', { schema })
    expectTypeOf(contract).toEqualTypeOf<TopicContract<'a', string, number, unknown, unknown>>()
  })

  it('keep the pattern', () => {
    expectTypeOf(ofZod.pattern).toEqualTypeOf<'devices/+deviceId/telemetry'>()
    expectTypeOf(ofZod.filter).toEqualTypeOf<string>()
  })

  it('are those of one contract for every contract', () => {
    const contracts: readonly TopicContract[] = [ofZod, ofValibot, ofArktype, ask, plain]
    expectTypeOf(contracts[0]).toEqualTypeOf<TopicContract | undefined>()
    expectTypeOf(ofZod.at({ deviceId: '7' })).toExtend<TopicAddress>()
  })

  it('are the same from both entry points', () => {
    expectTypeOf<typeof nest.defineTopic>().toEqualTypeOf<typeof defineTopic>()
    expectTypeOf<nest.TopicContract>().toEqualTypeOf<TopicContract>()
  })
})

describe('the parameters of a contract', () => {
  it('are the named wildcards of the pattern', () => {
    expectTypeOf(ofZod.match('a')).toEqualTypeOf<{ readonly deviceId: string } | undefined>()
    expectTypeOf(ofZod.at({ deviceId: '7' })).toEqualTypeOf<TopicAddress<typeof ofZod>>()
    expectTypeOf(plain.at()).toEqualTypeOf<TopicAddress<typeof plain>>()
  })

  it('are checked', () => {
    // @ts-expect-error deviceId is missing
    ofZod.at({})
    // @ts-expect-error the parameters are missing
    ofZod.at()
    // @ts-expect-error deviceID is unknown
    ofZod.at({ deviceID: '7' })
    // @ts-expect-error a number is not a string
    ofZod.at({ deviceId: 7 })
    // @ts-expect-error this pattern has no parameters
    plain.at({ deviceId: '7' })
  })
})

declare const client: MqttClient
declare const service: nest.MqttService

describe('the calls of a client with a contract', () => {
  it('accept exactly the input of the schema as the payload', () => {
    const publish = () => client.publish(ofZod.at({ deviceId: '7' }), { celsius: 1, at: '' }, { qos: 0 })
    expectTypeOf(publish).returns.resolves.toEqualTypeOf<PublishOutcome>()
    const wrong = () => {
      // @ts-expect-error celsius is not a string
      void client.publish(ofZod.at({ deviceId: '7' }), { celsius: '1', at: '' })
      // @ts-expect-error at is missing
      client.tryPublish(ofValibot.at({ deviceId: '7' }), { celsius: 1 })
      // @ts-expect-error celsius is not a string
      void client.publish(ofArktype.at({ deviceId: '7' }), { celsius: '1', at: '' })
      // @ts-expect-error the payload is missing
      void client.publish(ofZod.at({ deviceId: '7' }))
      // @ts-expect-error a contract is not a topic: at() returns one
      void client.publish(plain, 1)
      // @ts-expect-error count is not a string
      void service.request(ask.at({ deviceId: '7' }), { count: '1' })
    }
    expectTypeOf(wrong).returns.toBeVoid()
  })

  it('accept any payload for a topic that is a string, or for a contract without a schema', () => {
    expectTypeOf(client.publish<string>)
      .parameter(1)
      .toBeUnknown()
    expectTypeOf(() => client.publish(plain.at(), Symbol.iterator)).returns.resolves.toHaveProperty('status')
  })

  it('return the output of the response schema', () => {
    const request = () => client.request(ask.at({ deviceId: '7' }), { count: 1 })
    expectTypeOf(request).returns.resolves.toEqualTypeOf<{ ok: boolean }>()
    const stream = () => service.requestStream(ask.at({ deviceId: '7' }), { count: 1 })
    expectTypeOf(stream).returns.toEqualTypeOf<AsyncIterableIterator<{ ok: boolean }>>()
  })

  it('give handlers and loops the output of the schema and the parameters', () => {
    const work = () => {
      client.subscribe(ofZod, ({ payload, params }, { attempt }) => {
        expectTypeOf(payload).branded.toEqualTypeOf<Out>()
        expectTypeOf(params).toEqualTypeOf<{ readonly deviceId: string }>()
        expectTypeOf(attempt).toEqualTypeOf<number>()
      })
      client.messages(ofArktype, { limit: 1 })
      service.messages$(ofValibot).subscribe(({ payload }) => {
        expectTypeOf(payload).branded.toEqualTypeOf<Out>()
      })
    }
    expectTypeOf(work).returns.toBeVoid()
    type Loop = ReturnType<typeof client.messages<typeof ofArktype>>
    expectTypeOf<Loop>().toExtend<
      MqttMessages<TopicPayload<typeof ofArktype>, { readonly deviceId: string }>
    >()
  })

  it('accept only the input of the response schema from a responder', () => {
    const work = () => {
      client.respond(ask, ({ payload }) => ({ ok: payload.count > 0 }))
      client.respond(ask, async () => ({}))
      client.respond(ask, async function* () {
        yield { ok: true }
      })
      // @ts-expect-error ok is not a string
      client.respond(ask, () => ({ ok: 'yes' }))
      client.respond(ask.at({ deviceId: '7' }), ({ payload }) => ({ ok: payload.count > 0 }))
      // @ts-expect-error ok is not a string
      client.respond(ask.at({ deviceId: '7' }), () => ({ ok: 'yes' }))
      // @ts-expect-error ok is not a string
      client.respond(ask, async () => ({ ok: 'yes' }))
    }
    expectTypeOf(work).returns.toBeVoid()
  })

  it('keep the types of calls with strings', () => {
    const work = () => {
      client.subscribe<number>('a/+b', ({ payload, params }) => {
        expectTypeOf(payload).toEqualTypeOf<number>()
        expectTypeOf(params).toEqualTypeOf<Readonly<Record<string, string>>>()
      })
      client.subscribe('a', ({ payload }: MqttMessage<number>) => payload)
    }
    expectTypeOf(work).returns.toBeVoid()
    const assigned = async () => {
      const value: number = await client.request('a', 1)
      return value
    }
    expectTypeOf(assigned).returns.resolves.toEqualTypeOf<number>()
  })
})

describe('defineTopic', () => {
  it('refuses wrong options', () => {
    // @ts-expect-error no such QoS
    defineTopic('a', { qos: 3 })
    // @ts-expect-error unknown
    defineTopic('a', { shema: z.string() })
    // @ts-expect-error not a schema
    defineTopic('a', { schema: { parse: () => 1 } })
    // @ts-expect-error no such policy
    defineTopic('a', { whenBlocked: 'never' })
  })

  it('returns what cannot be changed', () => {
    // @ts-expect-error readonly
    plain.filter = 'b'
    // @ts-expect-error readonly
    plain.policy.qos = 0
  })
})
