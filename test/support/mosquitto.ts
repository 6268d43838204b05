import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { freePort } from './free-port.js'

const BINARIES = [
  '/usr/sbin/mosquitto',
  '/usr/local/sbin/mosquitto',
  '/opt/homebrew/sbin/mosquitto',
  '/usr/bin/mosquitto',
]

const PLUGINS = [
  '/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so',
  '/usr/lib/aarch64-linux-gnu/mosquitto_dynamic_security.so',
  '/opt/homebrew/lib/mosquitto_dynamic_security.so',
]

function found(places: readonly string[], what: string): string {
  const place = places.find(existsSync)
  if (place === undefined)
    throw new Error(`${what} is not installed; run \`apt-get install mosquitto mosquitto-clients\``)
  return place
}

/** Rules by which everybody may do everything but subscribe to one filter. */
function dynamicSecurity(filter: string) {
  const deny = { acltype: 'subscribePattern', topic: filter, priority: 0, allow: false }
  return {
    defaultACLAccess: {
      publishClientSend: true,
      publishClientReceive: true,
      subscribe: true,
      unsubscribe: true,
    },
    roles: [{ rolename: 'denied', acls: [deny] }],
    groups: [{ groupname: 'everybody', roles: [{ rolename: 'denied' }] }],
    anonymousGroup: 'everybody',
    clients: [],
  }
}

function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some(folder => existsSync(join(folder, program)))
}

const PACKAGES = ['mosquitto', 'mosquitto-clients', 'openssl', 'python3-paho-mqtt']

/** Where Debian's python3-paho-mqtt is. */
const PAHO = '/usr/lib/python3/dist-packages/paho/mqtt'

const SYSTEM = {
  hasMosquitto: () =>
    BINARIES.some(existsSync) && isOnPath('mosquitto_pub') && isOnPath('openssl') && existsSync(PAHO),
  say: (line: string): void => {
    process.stderr.write(`${line}\n`)
  },
  aptGet: (...given: string[]): void => {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    execFileSync('apt-get', given, { stdio: 'ignore', env })
  },
}

/** Installs mosquitto, its clients and openssl with apt-get where it can, after it has said so. */
export function ensureMosquitto({ hasMosquitto, say, aptGet } = SYSTEM): void {
  if (hasMosquitto()) return
  const packages = PACKAGES.join(' ')
  say(`These tests need ${packages}. Installing what is missing: apt-get install -y ${packages}`)
  try {
    aptGet('update')
    aptGet('install', '-y', '--no-install-recommends', ...PACKAGES)
  } catch (cause) {
    throw new Error(`apt-get could not install ${packages}. Install them and run the tests again`, { cause })
  }
}

export interface MosquittoOptions {
  /** Lines for the configuration file. */
  readonly config?: readonly string[]
  /** A filter that no client may subscribe to. */
  readonly denySubscribe?: string
  /** Keep sessions and messages in a file over SIGTERM. */
  readonly persistent?: boolean
}

/** A real mosquitto on a free port of the loopback address, in a folder of its own. */
export class Mosquitto {
  private process: ChildProcess | undefined

  private constructor(
    readonly port: number,
    private readonly folder: string,
  ) {}

  static async start(options: MosquittoOptions = {}): Promise<Mosquitto> {
    const folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-mosquitto-'))
    const port = await freePort()
    const rules = join(folder, 'dynamic-security.json')
    if (options.denySubscribe !== undefined) {
      writeFileSync(rules, JSON.stringify(dynamicSecurity(options.denySubscribe)), { mode: 0o600 })
    }
    const lines = [
      `listener ${port} 127.0.0.1`,
      'allow_anonymous true',
      'set_tcp_nodelay true',
      'user root',
      ...(options.denySubscribe === undefined
        ? []
        : [
            `plugin ${found(PLUGINS, 'its plugin mosquitto_dynamic_security')}`,
            `plugin_opt_config_file ${rules}`,
          ]),
      ...(options.persistent ? ['persistence true', `persistence_location ${folder}/`] : []),
      ...(options.config ?? []),
    ]
    writeFileSync(join(folder, 'mosquitto.conf'), `${lines.join('\n')}\n`)
    const broker = new Mosquitto(port, folder)
    await broker.up()
    return broker
  }

  get url(): string {
    return `mqtt://127.0.0.1:${this.port}`
  }

  /** Starts the broker and resolves when it takes connections. */
  async up(): Promise<void> {
    const child = spawn(found(BINARIES, 'mosquitto'), ['-c', join(this.folder, 'mosquitto.conf')], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.process = child
    let log = ''
    child.stderr?.on('data', (chunk: Buffer) => {
      log += chunk.toString()
    })
    while (!(await answers(this.port))) {
      if (child.exitCode !== null) throw new Error(`mosquitto did not start: ${log}`)
    }
  }

  /** Ends the broker. SIGTERM lets it write its persistence file, SIGKILL does not. */
  async down(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const child = this.process
    this.process = undefined
    if (child === undefined || child.exitCode !== null) return
    const exited = once(child, 'exit')
    child.kill(signal)
    await exited
  }

  async stop(): Promise<void> {
    await this.down('SIGKILL')
    rmSync(this.folder, { recursive: true, force: true })
  }
}

function answers(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
