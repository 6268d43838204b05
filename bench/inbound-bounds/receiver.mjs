// Receives a flood without handling it, and reports its memory on request.

import { newHandler } from '../../dist/client/inbound/delivery.js'
import { Subscriber } from '../../dist/client/inbound/subscriber.js'
import { MqttSession } from '../../dist/client/mqtt-session.js'
import { parseTopicFilter } from '../../dist/core/topic/topic-filter.js'
import { resolveOptions } from '../../dist/options/option-checks.js'
import { memory } from '../memory.mjs'
import { config, respondToRequests, say } from '../requests.mjs'

const { port, protocolVersion, handler } = config
const options = resolveOptions({
  url: `mqtt://127.0.0.1:${port}`,
  protocolVersion,
  keepalive: 0,
  reconnect: { delayMs: [1_000] },
})
const silent = { error: () => {}, warn: () => {}, log: () => {}, debug: () => {} }
const session = new MqttSession(options, silent)
const never = () => new Promise(() => {})

const HANDLERS = {
  'unread loop': () => {
    globalThis.loop = new Subscriber(session, options).messages(
      'flood',
      { qos: 1 },
      { limit: 1_000, overflow: 'drop-oldest' },
    )
  },
  'no ack()': () => {
    new Subscriber(session, options).subscribe('flood', () => {}, { ack: 'manual' })
  },
  hanging: () => {
    const rules = { name: 'flood', run: never, concurrency: 16, orderKey: 'none' }
    session.addRoute(
      parseTopicFilter('flood'),
      { qos: 2, noLocal: false, retainHandling: 0 },
      newHandler(rules),
    )
  },
}

await session.start()
HANDLERS[handler]()
session.flushSubscriptions()
session.serve()
const before = memory()
let most = before.rss
setInterval(() => {
  most = Math.max(most, process.memoryUsage().rss)
}, 20)
say({ ready: true })
respondToRequests(() => {
  most = Math.max(most, process.memoryUsage().rss)
  return { before: before.rss, most, now: memory().rss, stats: session.stats }
})
