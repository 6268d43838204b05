// Handles messages of a persistent session, and acknowledges each one after writing it to the journal.
import { setTimeout as wait } from 'node:timers/promises'
import { begin } from '../soak/remote.mjs'
import { ClusterClient, TOPIC } from './client-process.mjs'

const WORK_MS = 2
const GRANT_LIMIT_MS = 20_000

class Subscriber extends ClusterClient {
  /** Highest number that was handled, by publisher. */
  last = { plain: 0, storing: 0 }

  options() {
    return { clean: false }
  }

  async prepare(client) {
    const subscription = client.subscribe(`${TOPIC}/+publisher`, message => this.handle(message), { qos: 1 })
    await client.start()
    await subscription.whenGranted({ timeoutMs: GRANT_LIMIT_MS })
  }

  async handle({ params, payload, dup }) {
    await wait(WORK_MS)
    this.journal.note('H', params.publisher, payload.number, Date.now(), dup ? 'dup' : 'first')
    this.last[params.publisher] = Math.max(this.last[params.publisher], payload.number)
  }

  lastHandled() {
    return [this.last.plain, this.last.storing]
  }
}

await begin(Subscriber)
