import { describe, expectTypeOf, it } from 'vitest'
import type { DropReason, MqttService, PublishOutcome, TryPublishOutcome } from '../../src/index.js'

describe('PublishOutcome', () => {
  it('is discriminated by its status, and has no other variants', () => {
    const describeOutcome = (outcome: PublishOutcome): string => {
      switch (outcome.status) {
        case 'sent':
          expectTypeOf(outcome).toEqualTypeOf<{ readonly status: 'sent' }>()
          return ''
        case 'acknowledged':
          expectTypeOf(outcome.reasonCode).toEqualTypeOf<number>()
          return ''
        case 'dropped':
          expectTypeOf(outcome.reason).toEqualTypeOf<DropReason>()
          return outcome.reason
        case 'refused':
          expectTypeOf(outcome.reasonCode).toEqualTypeOf<number>()
          expectTypeOf(outcome.reasonString).toEqualTypeOf<string | undefined>()
          return ''
        case 'stored':
          expectTypeOf(outcome.messageId).toEqualTypeOf<string>()
          return outcome.messageId
        case 'lost':
          expectTypeOf(outcome.cause).toEqualTypeOf<Error>()
          return outcome.cause.message
        default:
          expectTypeOf(outcome).toBeNever()
          return outcome
      }
    }
    expectTypeOf(describeOutcome).returns.toEqualTypeOf<string>()
  })

  it('has only common fields before it is narrowed', () => {
    expectTypeOf<keyof PublishOutcome>().toEqualTypeOf<'status'>()
    expectTypeOf<PublishOutcome['status']>().toEqualTypeOf<
      'sent' | 'acknowledged' | 'stored' | 'dropped' | 'refused' | 'lost'
    >()
  })

  it('cannot be changed', () => {
    const outcome: { readonly outcome: Extract<PublishOutcome, { status: 'acknowledged' }> } = {
      outcome: { status: 'acknowledged', reasonCode: 0 },
    }
    // @ts-expect-error readonly
    outcome.outcome.reasonCode = 1
  })

  it('accepts no other status', () => {
    // @ts-expect-error a reason is missing
    expectTypeOf({ status: 'dropped' } as const).toExtend<PublishOutcome>()
    // @ts-expect-error no such reason
    expectTypeOf({ status: 'dropped', reason: 'tired' } as const).toExtend<PublishOutcome>()
    // @ts-expect-error accepted is an outcome of tryPublish only
    expectTypeOf({ status: 'accepted' } as const).toExtend<PublishOutcome>()
  })
})

describe('DropReason', () => {
  it('is a closed list', () => {
    expectTypeOf<DropReason>().toEqualTypeOf<
      | 'offline'
      | 'backlog'
      | 'in-flight-full'
      | 'queue-full'
      | 'superseded'
      | 'expired'
      | 'aborted'
      | 'closed'
      | 'store-failed'
      | 'store-full'
    >()
  })
})

describe('TryPublishOutcome', () => {
  it('is accepted or dropped', () => {
    expectTypeOf<TryPublishOutcome['status']>().toEqualTypeOf<'accepted' | 'dropped'>()
    expectTypeOf<Extract<TryPublishOutcome, { status: 'dropped' }>['reason']>().toEqualTypeOf<DropReason>()
  })
})

describe('MqttService', () => {
  it('returns outcomes: as a promise from publish, directly from tryPublish', () => {
    expectTypeOf<MqttService['publish']>().returns.toEqualTypeOf<Promise<PublishOutcome>>()
    expectTypeOf<MqttService['tryPublish']>().returns.toEqualTypeOf<TryPublishOutcome>()
  })

  it('lets publish choose a QoS, and tryPublish not', () => {
    type PublishOptions = NonNullable<Parameters<MqttService['publish']>[2]>
    type TryPublishOptions = NonNullable<Parameters<MqttService['tryPublish']>[2]>
    expectTypeOf<PublishOptions['qos']>().toEqualTypeOf<0 | 1 | 2 | undefined>()
    expectTypeOf<TryPublishOptions>().not.toHaveProperty('qos')
  })
})
