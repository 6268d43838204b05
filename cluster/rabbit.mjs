// Three RabbitMQ nodes with the MQTT plugin, and their own epmd.
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Child, freePorts, newFolder, program, rabbitServer } from '../scripts/brokers/start.mjs'

const SIZE = 3
const COMMAND_LIMIT_MS = 30_000
/** On a busy machine, three nodes need more than a minute. */
const START_LIMIT_MS = 150_000

/** One scheduler that does not spin while it waits: three nodes share the machine with the clients. */
const SERVER_ARGS =
  '-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none'

/**
 * Counts the nodes that run, and for each queue the replicas that it should have and those that are up to date.
 * A quorum queue may lag by the messages in flight.
 */
const STATE = `
Mqtt = length([N || N <- rabbit_nodes:all_running(), rpc:call(N, rabbit_mqtt, module_info, [module]) =:= rabbit_mqtt]),
Queue = fun(Q) ->
  {resource, VHost, queue, Name} = amqqueue:get_name(Q),
  case amqqueue:get_type(Q) of
    rabbit_quorum_queue ->
      Members = rabbit_quorum_queue:status(VHost, Name),
      Indexes = [proplists:get_value(<<"Commit Index">>, M) || M <- Members],
      Numbers = [I || I <- Indexes, is_integer(I)],
      [Name, length(Members), length([I || I <- Numbers, lists:max(Numbers) - I < 200])];
    rabbit_classic_queue ->
      Info = [{K, V} || {K, V} <- rabbit_amqqueue:info(Q, [slave_pids, synchronised_slave_pids])],
      Mirrors = fun(K) -> case proplists:get_value(K, Info) of L when is_list(L) -> length(L); _ -> 0 end end,
      [Name, 1 + Mirrors(slave_pids), 1 + Mirrors(synchronised_slave_pids)]
  end
end,
rabbit_json:encode([Mqtt, [Queue(Q) || Q <- rabbit_amqqueue:list()]]).
`

const WHAT = {
  classic: 'the default queues, which are not replicated',
  mirrored: 'mirrored queues (policy ha-mode: all)',
  quorum: 'mqtt.durable_queue_type = quorum',
}
const MIRRORED = JSON.stringify({ 'ha-mode': 'all', 'ha-sync-mode': 'automatic' })

class RabbitNode {
  /** Commands that are running. */
  commands = new Set()

  constructor(name, port, env) {
    this.name = name
    this.port = port
    this.env = env
    this.url = `mqtt://127.0.0.1:${port}`
  }

  start() {
    const folder = dirname(this.env.RABBITMQ_CONFIG_FILE)
    this.child = new Child(rabbitServer(), [], { env: this.env, cwd: folder })
    return this.child.listens(this.port, START_LIMIT_MS)
  }

  async kill() {
    this.child.signal('SIGKILL')
    await this.child.ended
  }

  /** Runs `rabbitmqctl`, in a process group of its own. @returns what it has written */
  async command(...args) {
    const file = join(dirname(rabbitServer()), 'rabbitmqctl')
    const child = new Child(file, args, { env: { ...this.env, RABBITMQ_SERVER_START_ARGS: '' } })
    this.commands.add(child)
    const late = setTimeout(() => child.signal('SIGKILL'), COMMAND_LIMIT_MS)
    await child.ended
    clearTimeout(late)
    this.commands.delete(child)
    return child.log
  }

  /** Whether every node runs, and every queue has its replicas. */
  async isReady(queues) {
    // An Erlang binary: <<"...">>, with escaped quotes.
    const text = /^<<"(\[\d+,.*\])">>$/m.exec(await this.command('eval', STATE))?.[1].replaceAll('\\"', '"')
    if (text === undefined) return false
    const [running, all] = JSON.parse(text)
    const replicas = queues === 'classic' ? 1 : SIZE
    return (
      running === SIZE && all.every(([, members, current]) => members === replicas && current === replicas)
    )
  }
}

export async function rabbitCluster({ queues }) {
  const folder = newFolder('cluster-rabbitmq')
  const [epmdPort, ...ports] = await freePorts(1 + 3 * SIZE)
  writeFileSync(join(folder, '.erlang.cookie'), 'loopback', { mode: 0o400 })
  writeFileSync(join(folder, 'plugins'), '[rabbitmq_mqtt].\n')
  const epmd = new Child(program('epmd'), ['-address', '127.0.0.1', '-port', String(epmdPort)])
  const names = Array.from({ length: SIZE }, (_, index) => `rabbitmq${index + 1}@localhost`)
  const nodes = names.map((name, index) => {
    const [port, distPort, commandPort] = ports.slice(3 * index)
    const own = join(folder, name)
    mkdirSync(own)
    const lines = [
      'listeners.tcp = none',
      `mqtt.listeners.tcp.1 = 127.0.0.1:${port}`,
      'mqtt.allow_anonymous = true',
      'mqtt.prefetch = 256',
      'loopback_users = none',
      'cluster_formation.peer_discovery_backend = classic_config',
      ...names.map((each, number) => `cluster_formation.classic_config.nodes.${number + 1} = ${each}`),
      ...(queues === 'quorum' ? ['mqtt.durable_queue_type = quorum'] : []),
    ]
    writeFileSync(join(own, 'rabbitmq.conf'), `${lines.join('\n')}\n`)
    return new RabbitNode(name, port, {
      HOME: folder,
      ERL_EPMD_PORT: String(epmdPort),
      RABBITMQ_NODENAME: name,
      RABBITMQ_DIST_PORT: String(distPort),
      RABBITMQ_CTL_DIST_PORT_MIN: String(commandPort),
      RABBITMQ_CTL_DIST_PORT_MAX: String(commandPort),
      RABBITMQ_CONFIG_FILE: join(own, 'rabbitmq.conf'),
      RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, 'plugins'),
      RABBITMQ_MNESIA_BASE: join(own, 'mnesia'),
      RABBITMQ_LOG_BASE: own,
      RABBITMQ_PID_FILE: join(own, 'pid'),
      RABBITMQ_SERVER_START_ARGS: SERVER_ARGS,
    })
  })
  const [first, ...others] = nodes
  return {
    folder,
    nodes,
    what: WHAT[queues],
    start: async () => {
      await first.start()
      await Promise.all(others.map(node => node.start()))
      if (queues === 'mirrored') await first.command('set_policy', 'mirrored', '.*', MIRRORED)
    },
    isReady: () => first.isReady(queues),
    children: () => [
      epmd,
      ...nodes.flatMap(({ child, commands }) => [...commands, ...(child ? [child] : [])]),
    ],
  }
}
