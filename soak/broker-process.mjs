// The broker of a run: mosquitto. The embedded broker keeps no sessions across a restart and has no Shared Subscriptions.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { serve } from './remote.mjs'

const { folder } = JSON.parse(process.argv[2])
const PLACES = ['/usr/sbin', '/usr/local/sbin', '/opt/homebrew/sbin', '/usr/bin']
const binary = PLACES.map(place => join(place, 'mosquitto')).find(existsSync)

class Mosquitto {
  async open() {
    this.port = await freePort()
    const lines = [
      `listener ${this.port} 127.0.0.1`,
      'allow_anonymous true',
      'set_tcp_nodelay true',
      'user root',
      'persistence true',
      `persistence_location ${folder}/`,
      'max_queued_messages 0',
      'max_inflight_messages 0',
    ]
    writeFileSync(join(folder, 'mosquitto.conf'), `${lines.join('\n')}\n`)
    await this.up()
  }

  async up() {
    if (this.child !== undefined) return
    const child = spawn(binary, ['-c', join(folder, 'mosquitto.conf')], { stdio: 'ignore' })
    this.child = child
    while (!(await accepts(this.port))) {
      if (child.exitCode !== null) throw new Error(`mosquitto ended with ${child.exitCode}`)
      await wait(10)
    }
  }

  /** It writes its sessions and messages to a file first. */
  async down() {
    const { child } = this
    this.child = undefined
    if (child === undefined) return
    const ended = once(child, 'exit')
    child.kill('SIGTERM')
    await ended
  }

  async pause(ms) {
    const { child } = this
    child?.kill('SIGSTOP')
    await wait(ms)
    child?.kill('SIGCONT')
  }

  end() {
    this.child?.kill('SIGKILL')
  }
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

function accepts(port) {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true) ?? socket.destroy())
    socket.once('error', () => resolve(false))
  })
}

if (binary === undefined) throw new Error(`mosquitto is not installed (looked in ${PLACES.join(', ')})`)
const broker = new Mosquitto()
process.on('exit', () => broker.end())
await broker.open()
serve({
  place: () => ({ port: broker.port }),
  up: () => broker.up(),
  down: () => broker.down(),
  pause: ms => broker.pause(ms),
  async finish() {
    broker.end()
    process.disconnect()
  },
})
