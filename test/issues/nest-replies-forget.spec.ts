import { expect, it } from 'vitest'
import { jsonCodec } from '../../src/codec.js'
import type { PublishOutcome } from '../../src/publish-outcome.js'
import { HandlerAttempt } from '../../src/transport/inbound/handler-attempt.js'
import type { InboundHandler } from '../../src/transport/inbound/inbound-handler.js'
import { NestReplies } from '../../src/transport/requests/nest-replies.js'
import { OpenRequests } from '../../src/transport/requests/open-requests.js'
import { OwnReplies } from '../../src/transport/requests/own-replies.js'
import type { RequestPlan } from '../../src/transport/requests/request-plan.js'
import type { RequestSession } from '../../src/transport/requests/request-session.js'
import { holdClock } from '../support/held-clock.js'
import { json } from '../support/subscriber-on-peer.js'

holdClock()

const PLAN: RequestPlan = {
  protocol: 'nest',
  isStream: true,
  codec: jsonCodec,
  timeoutMs: 100,
  signal: undefined,
}
const MOST_TOPICS = 256

/** A session that grants everything at once. */
function asking() {
  const routes = new Map<string, InboundHandler>()
  const session: RequestSession = {
    connection: {
      state: { status: 'idle' },
      protocolVersion: 4,
      attach: () => () => {},
    },
    addRoute: ({ subscription }, _options, handler) => {
      routes.set(subscription, handler)
      return () => routes.delete(subscription)
    },
    flushSubscriptions: () => {},
    whenGranted: async () => {},
    publish: (): PublishOutcome => ({ status: 'sent' }),
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
  return { routes, open, ask, reply }
}

const askAndEnd = async ({ ask, open }: ReturnType<typeof asking>, topic: string): Promise<void> => {
  await ask(topic, topic)
  open.end(topic)
}

it('the reply topic that was used least recently goes when there are too many', async () => {
  const all = asking()
  for (let index = 0; index < MOST_TOPICS; index += 1) await askAndEnd(all, String(index))
  await askAndEnd(all, '0')
  await askAndEnd(all, 'new')
  expect(all.routes.size).toBe(MOST_TOPICS)
  expect(['0', '1', 'new'].map(topic => all.routes.has(`${topic}/reply`))).toEqual([true, false, true])
})

it('a reply topic with an open request stays, and its answer arrives', async () => {
  const all = asking()
  const slow = await all.ask('slow', 'slow')
  for (let index = 0; index < 2 * MOST_TOPICS; index += 1) await askAndEnd(all, String(index))
  expect(all.routes.size).toBeLessThanOrEqual(MOST_TOPICS + 1)
  await all.reply('slow', { id: 'slow', response: 1, isDisposed: true })
  expect(slow).toEqual([1, 'end'])
})
