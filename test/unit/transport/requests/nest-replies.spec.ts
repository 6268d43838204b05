import { describe, expect, it } from 'vitest'
import { jsonCodec } from '../../../../src/codec.js'
import { MqttError } from '../../../../src/errors.js'
import type { PublishOutcome } from '../../../../src/publish-outcome.js'
import { HandlerAttempt } from '../../../../src/transport/inbound/handler-attempt.js'
import type { InboundHandler } from '../../../../src/transport/inbound/inbound-handler.js'
import type { OutboundMessage } from '../../../../src/transport/outbound/outbound-message.js'
import { NestReplies } from '../../../../src/transport/requests/nest-replies.js'
import { OpenRequests } from '../../../../src/transport/requests/open-requests.js'
import { OwnReplies } from '../../../../src/transport/requests/own-replies.js'
import type { RequestPlan } from '../../../../src/transport/requests/request-plan.js'
import type { RequestSession } from '../../../../src/transport/requests/request-session.js'
import { holdClock } from '../../../support/held-clock.js'
import { json } from '../../../support/subscriber-on-peer.js'

holdClock()

const PLAN: RequestPlan = {
  protocol: 'nest',
  isStream: true,
  codec: jsonCodec,
  timeoutMs: 100,
  signal: undefined,
}

/** A session that grants everything at once. */
function asking() {
  const routes = new Map<string, InboundHandler>()
  const added: string[] = []
  const published: OutboundMessage[] = []
  const session: RequestSession = {
    connection: {
      state: { status: 'idle' },
      protocolVersion: 4,
      attach: () => () => {},
    },
    addRoute: ({ subscription }, _options, handler) => {
      added.push(subscription)
      routes.set(subscription, handler)
      return () => routes.delete(subscription)
    },
    flushSubscriptions: () => {},
    whenGranted: async () => {},
    publish: (message): PublishOutcome => {
      published.push(message)
      return { status: 'sent' }
    },
  }
  const open = new OpenRequests<RequestPlan>(1_000)
  const replies = new NestReplies(session, open, new OwnReplies('answers'))
  const ask = async (id: string, topic: string) => {
    const heard: unknown[] = []
    open.add(
      id,
      topic,
      {
        next: value => heard.push(value),
        end: () => heard.push('end'),
        fail: ({ message }) => heard.push(message),
      },
      PLAN,
    )
    const request = {
      topic,
      data: { to: topic },
      payload: Buffer.from('unused'),
      qos: 0,
      retain: false,
    } as const
    await replies.send(id, request, PLAN)
    return heard
  }
  const reply = async (topic: string, value: unknown): Promise<void> => {
    const attempt = new HandlerAttempt(1, () => {})
    await routes.get(`${topic}/reply`)?.run(json(`${topic}/reply`, value), attempt)
  }
  return { added, published, open, ask, reply }
}

describe('a request in the envelope', () => {
  it('has its topic as pattern, its data as they are, and its id', async () => {
    const { ask, open, published } = asking()
    await ask('7', 'ask')
    expect(published.map(({ topic, payload }) => [topic, JSON.parse(payload.toString())])).toEqual([
      ['ask', { pattern: 'ask', data: { to: 'ask' }, id: '7' }],
    ])
    open.end('7')
  })

  it.each([
    [
      [
        { id: '7', response: 1 },
        { id: '7', response: 2, isDisposed: true },
      ],
      [1, 2, 'end'],
    ],
    [[{ id: '7', isDisposed: true }], ['end']],
    [
      [
        { id: '7', response: 1 },
        { id: '7', isDisposed: true },
      ],
      [1, 'end'],
    ],
    [[{ id: '7', err: 'broken' }], ['broken']],
    [[{ id: '7', err: null, response: 1, isDisposed: true }], [1, 'end']],
    [
      [
        { id: '7', err: { message: 'warm' }, isDisposed: true },
        { id: '7', response: 1 },
      ],
      ['warm'],
    ],
    [
      [
        { id: '8', response: 1, isDisposed: true },
        { id: '7', response: null, isDisposed: true },
      ],
      [null, 'end'],
    ],
  ])('that is answered with %j', async (answers, heard) => {
    const { ask, reply, open } = asking()
    const own = await ask('7', 'ask')
    for (const answer of answers) await reply('ask', answer)
    expect(own).toEqual(heard)
    expect(open.size).toBe(0)
  })
})

describe('a reply topic', () => {
  it('is subscribed once for all requests on its topic', async () => {
    const { ask, open, added } = asking()
    for (const topic of ['a', 'b', 'a']) {
      await ask(`${topic}-${added.length}`, topic)
    }
    open.failAll(new MqttError('CONNECTION_LOST', 'lost'))
    expect(added).toEqual(['a/reply', 'b/reply'])
  })
})
