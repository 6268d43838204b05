// The connection without Nest, for benchmarks that look below the handlers.

import { newHandler } from '../dist/client/inbound/new-handler.js'
import { MqttSession } from '../dist/client/mqtt-session.js'
import { parseTopicFilter } from '../dist/core/topic/topic-filter.js'
import { resolveOptions } from '../dist/options/option-checks.js'

const silent = { error: console.error, warn: () => {}, log: () => {}, debug: () => {} }

export class BareSession {
  #session
  #dialledMs = 0
  #packets = 0
  #filters

  static async start({ filters, ...options }) {
    const started = new BareSession()
    started.#filters = filters.length
    const session = new MqttSession(resolveOptions({ ...options, reconnect: { delayMs: [5] } }), silent)
    started.#session = session
    for (const filter of filters) {
      session.addRoute(
        parseTopicFilter(filter),
        { qos: 1, noLocal: false, retainHandling: 0 },
        newHandler({ name: filter, run: async () => {} }),
      )
    }
    session.connection.attach({
      stateChanged: state => {
        if (state.status === 'connecting') started.#dialledMs = performance.now()
        if (state.status === 'connecting') started.#packets = 0
      },
      answered: packet => {
        if (packet.cmd === 'suback') started.#packets += 1
      },
    })
    await session.listen()
    return started
  }

  /** Resolves when the connection is noticed to be gone. */
  async lost() {
    while (this.#session.connection.state.status === 'connected') await new Promise(setImmediate)
  }

  /** Resolves when every filter is granted again; the time since the dial that succeeded. */
  async restored() {
    while (this.#session.stats.subscriptions.granted < this.#filters) await new Promise(setImmediate)
    return { ms: performance.now() - this.#dialledMs, packets: this.#packets }
  }

  stop() {
    return this.#session.close()
  }
}
