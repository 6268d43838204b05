// What the publishers and the subscriber of a run have in common: a client with the URLs of all nodes, and a journal.
//   S <time> <status> <URL>    the connection changed
//   C <number> <time>          publish was called
//   O <number> <outcome> <time>    it settled; "delivered" is the end of a stored message
//   H <publisher> <number> <time>  the handler ran to its end
import { MqttClient } from 'nestjs-mqtt/client'
import { Journal, RecentLog } from '../soak/journal.mjs'

/** Topic of everything that is published. */
export const TOPIC = 'cluster/load'

export class ClusterClient {
  constructor(role) {
    this.role = role
    this.journal = new Journal(role.journal)
    this.log = new RecentLog(`${role.journal}.log`)
  }

  // Options of this kind of client.
  options() {
    return {}
  }
  async prepare() {}

  async open() {
    const { role, journal } = this
    // With the default reconnect delays, so that the run measures what an application gets.
    this.client = new MqttClient({
      url: role.urls,
      clientId: role.name,
      protocolVersion: 4,
      drainTimeoutMs: 5_000,
      logger: this.log,
      ...this.options(),
    })
    this.client.onState(state => {
      journal.note('S', Date.now(), state.status, state.session?.broker ?? '-')
    })
    await this.prepare(this.client)
  }

  where() {
    const { state } = this.client
    return state.status === 'connected' ? state.session.broker : undefined
  }

  recentLog() {
    return this.log.lines
  }

  async finish() {
    await this.client.close()
    process.disconnect()
  }
}
