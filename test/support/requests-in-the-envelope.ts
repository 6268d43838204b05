import { ClientEvents } from '../../src/client/events.js'
import type { InboundHandler } from '../../src/client/inbound/delivery.js'
import { inEnvelope, ReplyTopics } from '../../src/client/requests/nest-envelope.js'
import { OpenRequests, type RequestSession } from '../../src/client/requests/open-requests.js'
import type { RequestPlan } from '../../src/client/requests/request-messages.js'
import type { OutboundMessage } from '../../src/core/outbound/outbound-message.js'
import type { PublishOutcome } from '../../src/core/outbound/publish-outcome.js'
import { ResponseTopics } from '../../src/core/requests/request-rules.js'
import { jsonCodec } from '../../src/options/codec.js'
import { loneAttempt } from './handler-runs.js'
import { OBSERVED_CLIENT } from './observed-client.js'
import { json } from './subscriber-on-peer.js'

const PLAN: RequestPlan = {
  protocol: 'nest',
  isStream: true,
  codec: jsonCodec,
  timeoutMs: 100,
  signal: undefined,
}

/** A session that grants everything at once. */
export function requestsInTheEnvelope() {
  const routes = new Map<string, InboundHandler>()
  const added: string[] = []
  const published: OutboundMessage[] = []
  const session: RequestSession = {
    connection: {
      state: { status: 'idle' },
      protocolVersion: 4,
    },
    addRoute: ({ subscription }, _options, handler) => {
      added.push(subscription)
      routes.set(subscription, handler)
      return () => routes.delete(subscription)
    },
    subscriptions: { flush: () => {}, isGranted: () => true, whenGranted: async () => {} },
    dispatcher: { pool: { requestOpened: () => () => {}, trackRequests: () => {} } },
    responseTopics: new ResponseTopics('responses'),
    events: new ClientEvents(OBSERVED_CLIENT, () => {}),
    publisher: { paced: undefined, replaced: undefined },
    publish: async (message): Promise<PublishOutcome> => {
      published.push(message)
      return { status: 'sent' }
    },
  }
  const open = new OpenRequests<RequestPlan>(
    1_000,
    () => () => {},
    () => {},
    1_000,
  )
  const replies = new ReplyTopics(session, open, 0)
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
    await new Promise<void>(resolve =>
      replies.listen(topic).wait(() => {
        published.push(inEnvelope(id, request))
        resolve()
      }),
    )
    return heard
  }
  const reply = async (topic: string, value: unknown): Promise<void> => {
    const attempt = loneAttempt()
    await routes.get(`${topic}/reply`)?.run(json(`${topic}/reply`, value), attempt)
  }
  return { routes, added, published, open, ask, reply }
}
