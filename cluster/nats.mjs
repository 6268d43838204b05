// Three NATS servers with JetStream and MQTT.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Child, freePorts, newFolder, program } from '../scripts/brokers/start.mjs'

const SIZE = 3
const REQUEST_LIMIT_MS = 2_000

/** A monitoring page of a server. Undefined while it does not respond. */
async function page(port, path) {
  try {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, {
      signal: AbortSignal.timeout(REQUEST_LIMIT_MS),
    })
    return response.ok ? await response.json() : undefined
  } catch {
    return undefined
  }
}

/** Whether there is a leader. If it is this node, every replica must be up to date; only the leader knows the replicas. */
const isWhole = (cluster, name) => {
  if (cluster?.leader === undefined || cluster.leader === '') return false
  if (cluster.leader !== name) return true
  return (cluster.replicas ?? []).every(({ current, offline }) => current && offline !== true)
}

class NatsNode {
  constructor(name, ports, file) {
    this.name = name
    this.ports = ports
    this.file = file
    this.url = `mqtt://127.0.0.1:${ports.mqtt}`
  }

  start() {
    this.child = new Child(program('nats-server'), ['-c', this.file])
    return this.child.listens(this.ports.monitor)
  }

  async kill() {
    this.child.signal('SIGKILL')
    await this.child.ended
  }

  /** Whether the server accepts clients, and its data is up to date. */
  async isReady(members) {
    if ((await page(this.ports.monitor, '/healthz?js-server-only=true'))?.status !== 'ok') return false
    const jetStream = await page(this.ports.monitor, '/jsz?accs=true&streams=true&consumers=true')
    if (jetStream?.meta_cluster?.leader === undefined) return false
    if (jetStream.meta_cluster.cluster_size !== members) return false
    const streams = (jetStream.account_details ?? []).flatMap(account => account.stream_detail ?? [])
    // Each server has a consumer of retained messages, in memory, which NATS 2.9 does not always bring up to date.
    const consumers = streams
      .filter(({ name }) => name === '$MQTT_msgs')
      .flatMap(stream => stream.consumer_detail ?? [])
    return [...streams, ...consumers].every(({ cluster }) => isWhole(cluster, this.name))
  }
}

/** @param replicas copies of each stream and consumer; undefined: what the servers choose */
export async function natsCluster({ replicas }) {
  const folder = newFolder('cluster-nats')
  const ports = await freePorts(4 * SIZE)
  const places = Array.from({ length: SIZE }, (_, index) => {
    const [client, cluster, monitor, mqtt] = ports.slice(4 * index)
    return { client, cluster, monitor, mqtt }
  })
  const routes = places.map(({ cluster }) => `nats://127.0.0.1:${cluster}`).join(', ')
  const limit = replicas === undefined ? '' : `stream_replicas: ${replicas}, consumer_replicas: ${replicas}`
  const nodes = places.map((place, index) => {
    const name = `n${index + 1}`
    const file = join(folder, `${name}.conf`)
    const lines = [
      `server_name: ${name}`,
      'host: 127.0.0.1',
      `port: ${place.client}`,
      `http: 127.0.0.1:${place.monitor}`,
      `log_file: "${join(folder, name)}.log"`,
      `cluster { name: loopback, host: 127.0.0.1, port: ${place.cluster}, routes: [${routes}] }`,
      `jetstream { store_dir: "${join(folder, name)}" }`,
      `mqtt { host: 127.0.0.1, port: ${place.mqtt}, ${limit} }`,
    ]
    writeFileSync(file, `${lines.join('\n')}\n`)
    return new NatsNode(name, place, file)
  })
  return {
    folder,
    nodes,
    what: replicas === undefined ? 'the default of 3 replicas' : `stream_replicas: ${replicas}`,
    start: () => Promise.all(nodes.map(node => node.start())),
    isReady: async () => (await Promise.all(nodes.map(node => node.isReady(SIZE)))).every(Boolean),
    children: () => nodes.flatMap(({ child }) => child ?? []),
  }
}
