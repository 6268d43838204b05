// Starts the brokers that this machine has, each on free ports of the loopback address, with its files in a folder of its own.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const START_LIMIT_MS = 60_000
const STOP_LIMIT_MS = 10_000
const DIST = fileURLToPath(new URL('../../dist/', import.meta.url))

export async function freePorts(count) {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map(server => once(server, 'listening')))
  const ports = servers.map(server => server.address().port)
  await Promise.all(servers.map(server => once(server.close(), 'close')))
  return ports
}

const FOLDERS = [
  ...(process.env.PATH ?? '').split(delimiter),
  '/usr/sbin',
  '/usr/local/sbin',
  '/opt/homebrew/sbin',
]

/** Path of a program. Undefined if it is not installed. */
export function program(name) {
  return FOLDERS.map(folder => join(folder, name)).find(existsSync)
}

const versionIn = (file, args, pattern) => {
  try {
    return pattern.exec(
      execFileSync(file, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }),
    )?.[1]
  } catch (error) {
    return pattern.exec(`${error.stdout}${error.stderr}`)?.[1]
  }
}

const packageVersion = name => {
  if (program('dpkg-query') === undefined) return undefined
  return versionIn('dpkg-query', ['-W', name], /\t([\d.]+)/)
}

function accepts(port) {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true))
    socket.once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}

const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

/** A child process in its own group, which `stop` ends with everything that it has started. */
export class Child {
  log = ''

  constructor(file, args, { env, cwd } = {}) {
    this.process = spawn(file, args, {
      cwd,
      env: { ...process.env, ...env },
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [this.process.stdout, this.process.stderr])
      stream.on('data', chunk => {
        this.log = `${this.log}${chunk}`.slice(-20_000)
      })
    this.ended = new Promise(resolve => this.process.once('close', resolve))
    this.process.once('error', error => {
      this.log += String(error)
    })
  }

  get isRunning() {
    return this.process.exitCode === null && this.process.signalCode === null
  }

  async listens(port, limitMs = START_LIMIT_MS) {
    const end = Date.now() + limitMs
    while (!(await accepts(port))) {
      if (!this.isRunning) throw new Error(`the broker did not start:\n${this.log}`)
      if (Date.now() > end) throw new Error(`the broker is not listening after ${limitMs} ms:\n${this.log}`)
      await pause(50)
    }
  }

  /** Ends only the group of the process that was started here. */
  async stop() {
    for (const signal of ['SIGTERM', 'SIGKILL']) {
      if (!this.isRunning) break
      this.signal(signal)
      const timer = pause(STOP_LIMIT_MS)
      await Promise.race([this.ended, timer])
    }
    this.signal('SIGKILL')
  }

  signal(name) {
    try {
      process.kill(-this.process.pid, name)
    } catch {
      // The group has ended.
    }
  }
}

export const newFolder = name => mkdtempSync(join(tmpdir(), `nestjs-mqtt-${name}-`))

function running(port, folder, children) {
  return {
    url: `mqtt://127.0.0.1:${port}`,
    port,
    stop: async () => {
      for (const child of children) await child.stop()
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Ends what was started if the broker does not listen. */
async function untilItListens(port, folder, children) {
  const broker = running(port, folder, children)
  try {
    await children.at(-1).listens(port)
  } catch (error) {
    await broker.stop()
    throw error
  }
  return broker
}

async function startMosquitto() {
  const folder = newFolder('mosquitto')
  const [port] = await freePorts(1)
  const file = join(folder, 'mosquitto.conf')
  // The defaults of mosquitto, except for what it needs to accept anybody.
  writeFileSync(file, `listener ${port} 127.0.0.1\nallow_anonymous true\nuser root\n`)
  return untilItListens(port, folder, [new Child(program('mosquitto'), ['-c', file])])
}

async function startAedes() {
  const { EmbeddedBroker } = await import(pathToFileURL(join(DIST, 'esm/testing/index.js')).href)
  const broker = await EmbeddedBroker.start()
  return { url: broker.url, port: Number(new URL(broker.url).port), stop: () => broker.stop() }
}

async function startNats() {
  const folder = newFolder('nats')
  const [port, clientPort] = await freePorts(2)
  const file = join(folder, 'nats.conf')
  writeFileSync(
    file,
    `server_name: one\nhost: 127.0.0.1\nport: ${clientPort}\njetstream { store_dir: "${folder}" }\nmqtt { host: 127.0.0.1, port: ${port} }\n`,
  )
  return untilItListens(port, folder, [new Child(program('nats-server'), ['-c', file])])
}

async function startRabbit() {
  const folder = newFolder('rabbitmq')
  const [port, epmdPort, distPort] = await freePorts(3)
  const file = name => join(folder, name)
  mkdirSync(file('mnesia'))
  writeFileSync(
    file('rabbitmq.conf'),
    `listeners.tcp = none\nmqtt.listeners.tcp.1 = 127.0.0.1:${port}\nmqtt.allow_anonymous = true\nloopback_users = none\n`,
  )
  writeFileSync(file('plugins'), '[rabbitmq_mqtt].\n')
  const epmd = new Child(program('epmd'), ['-address', '127.0.0.1', '-port', String(epmdPort)])
  const env = {
    HOME: folder,
    ERL_EPMD_PORT: String(epmdPort),
    RABBITMQ_NODENAME: 'one@localhost',
    RABBITMQ_DIST_PORT: String(distPort),
    RABBITMQ_CONFIG_FILE: file('rabbitmq.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: file('plugins'),
    RABBITMQ_MNESIA_BASE: file('mnesia'),
    RABBITMQ_LOG_BASE: folder,
    RABBITMQ_PID_FILE: file('pid'),
    RABBITMQ_SERVER_START_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
  }
  return untilItListens(port, folder, [epmd, new Child(rabbitServer(), [], { env, cwd: folder })])
}

/** The script of RabbitMQ itself: that in /usr/sbin changes the user. */
export function rabbitServer() {
  const version = packageVersion('rabbitmq-server')
  const own = `/usr/lib/rabbitmq/lib/rabbitmq_server-${version}/sbin/rabbitmq-server`
  return version !== undefined && existsSync(own) ? own : program('rabbitmq-server')
}

async function startEjabberd() {
  const folder = newFolder('ejabberd')
  const [port] = await freePorts(1)
  const config = join(folder, 'ejabberd.yml')
  const lines = [
    'hosts: [localhost]',
    'loglevel: warning',
    'auth_method: [anonymous]',
    'anonymous_protocol: login_anon',
    'allow_multiple_connections: true',
    'listen:',
    `  - { port: ${port}, ip: "127.0.0.1", module: mod_mqtt, backlog: 1000 }`,
    'modules: { mod_mqtt: {} }',
  ]
  writeFileSync(config, `${lines.join('\n')}\n`)
  const env = {
    HOME: folder,
    ERL_LIBS: '/usr/lib/x86_64-linux-gnu',
    EJABBERD_CONFIG_PATH: config,
    EJABBERD_LOG_PATH: join(folder, 'ejabberd.log'),
    ERL_CRASH_DUMP: join(folder, 'crash'),
  }
  const args = ['-noinput', '-mnesia', 'dir', `"${folder}/mnesia"`, '-s', 'ejabberd']
  const broker = await untilItListens(port, folder, [new Child(program('erl'), args, { env, cwd: folder })])
  // The anonymous accounts of ejabberd have a name of their choice.
  return { ...broker, credentials: { username: 'interop@localhost', password: 'interop' } }
}

/** Every broker, with its version. The version is undefined if the broker is not installed. */
export const BROKERS = [
  {
    id: 'mosquitto',
    title: 'mosquitto',
    version: () => {
      const file = program('mosquitto')
      return file && versionIn(file, ['-h'], /mosquitto version (\S+)/)
    },
    start: startMosquitto,
  },
  { id: 'aedes', title: 'aedes (EmbeddedBroker)', version: aedesVersion, start: startAedes },
  {
    id: 'nats',
    title: 'NATS',
    version: () => {
      const file = program('nats-server')
      return file && versionIn(file, ['--version'], /v?(\d+\.\d+\.\d+)/)
    },
    start: startNats,
  },
  { id: 'rabbitmq', title: 'RabbitMQ', version: () => packageVersion('rabbitmq-server'), start: startRabbit },
  { id: 'ejabberd', title: 'ejabberd', version: () => packageVersion('ejabberd'), start: startEjabberd },
]

function aedesVersion() {
  const file = fileURLToPath(new URL('../../node_modules/aedes/package.json', import.meta.url))
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).version : undefined
}
