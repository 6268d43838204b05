import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type Server } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { connectAsync } from 'mqtt'
import { generate } from 'mqtt-packet'
import { afterEach, describe, expect, it } from 'vitest'
import { FaultLink } from '../../src/testing/index.js'
import { freePort } from '../support/free-port.js'
import { Mosquitto } from '../support/mosquitto.js'

const SERVICE = fileURLToPath(new URL('apps/service.mjs', import.meta.url))

/** The service in a process of its own. */
class Service {
  readonly said: string[] = []
  private readonly child: ChildProcess

  constructor(url: string, env: Record<string, string> = {}, stderr: 'inherit' | 'ignore' = 'inherit') {
    this.child = spawn(process.execPath, [SERVICE], {
      env: { ...process.env, ...env, MQTT_URL: url },
      stdio: ['ignore', 'pipe', stderr],
    })
    if (this.child.stdout !== null) {
      createInterface({ input: this.child.stdout }).on('line', line => {
        this.said.push(line)
        this.child.emit('said')
      })
    }
  }

  async says(text: string): Promise<void> {
    while (!this.said.includes(text)) await once(this.child, 'said')
  }

  publish(): void {
    this.child.kill('SIGUSR2')
  }

  /** One SIGTERM, and the exit code. */
  async end(): Promise<number | null> {
    const exited = once(this.child, 'exit')
    this.child.kill('SIGTERM')
    await exited
    return this.child.exitCode
  }

  /** SIGTERM again and again; resolves with the signal that ended the process, null when it ended by itself. */
  async insist(): Promise<NodeJS.Signals | null> {
    while (this.child.exitCode === null && this.child.signalCode === null) {
      this.child.kill('SIGTERM')
      await new Promise(setImmediate)
    }
    return this.child.signalCode
  }

  async exitCode(): Promise<number | null> {
    if (this.child.exitCode === null) await once(this.child, 'exit')
    return this.child.exitCode
  }

  kill(): void {
    this.child.kill('SIGKILL')
  }
}

/** A server that accepts connections, and responds to the first bytes with these bytes. */
async function server(response?: Buffer): Promise<{ readonly url: string; readonly server: Server }> {
  const listening = createServer(socket => {
    socket.on('error', () => {})
    socket.on('end', () => socket.end())
    socket.once('data', () => {
      if (response !== undefined) socket.write(response)
    })
    socket.resume()
  }).listen(0, '127.0.0.1')
  await once(listening, 'listening')
  const address = listening.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return { url: `mqtt://127.0.0.1:${port}`, server: listening }
}

let service: Service | undefined
afterEach(() => service?.kill())

describe('the process exits with code 0 after one SIGTERM', () => {
  it('while it connects', async () => {
    const silent = await server()
    service = new Service(silent.url)
    await service.says('listening')
    await service.says('connecting')
    expect(await service.end()).toBe(0)
    silent.server.close()
  })

  it('while it waits for the next attempt', async () => {
    service = new Service(`mqtt://127.0.0.1:${await freePort()}`)
    await service.says('waiting')
    await service.says('listening')
    expect(await service.end()).toBe(0)
  })

  it('while handlers are running, after they have ended', async () => {
    const broker = await Mosquitto.start()
    service = new Service(broker.url, { HANDLER_TURNS: '2000' })
    await service.says('listening')
    await service.says('connected')
    const client = await connectAsync(broker.url)
    // The subscription may come after the state, so the message is repeated until one is handled.
    while (!service.said.includes('handling')) await client.publishAsync('work', '1', { qos: 1 })
    expect(await service.end()).toBe(0)
    const count = (text: string) => service?.said.filter(line => line === text).length
    expect(count('handled')).toBe(count('handling'))
    expect(service.said.at(-1)).toBe('closed')
    await client.endAsync(true)
    await broker.stop()
  })

  it('with publishes that are never acknowledged and end as lost', async () => {
    const connack = generate({ cmd: 'connack', reasonCode: 0, sessionPresent: false }, { protocolVersion: 5 })
    const mute = await server(connack)
    service = new Service(mute.url)
    await service.says('listening')
    await service.says('connected')
    service.publish()
    await service.says('publishing')
    expect(await service.end()).toBe(0)
    expect(service.said).toContain('outcomes lost lost lost')
    mute.server.close()
  })

  it('during a stalled write', async () => {
    const broker = await Mosquitto.start()
    const link = await FaultLink.start({ port: broker.port })
    service = new Service(link.url)
    await service.says('listening')
    await service.says('connected')
    link.stall()
    service.publish()
    await service.says('publishing')
    expect(await service.end()).toBe(0)
    expect(service.said.some(line => line.startsWith('outcomes '))).toBe(true)
    await link.stop()
    await broker.stop()
  })
})

describe.each(['pure', 'initialised', 'hybrid'])(
  'a %s application that starts with connect: fail-fast',
  KIND => {
    const env = { KIND, CONNECT: 'fail-fast' }

    it('abandons the start on SIGTERM while it connects, and exits with 0', async () => {
      const silent = await server()
      service = new Service(silent.url, env)
      await service.says('connecting')
      expect(await service.end()).toBe(0)
      expect(service.said).not.toContain('listening')
      silent.server.close()
    })

    it('abandons the start on SIGTERM while SUBACK is missing, and exits with 0', async () => {
      const connack = generate(
        { cmd: 'connack', reasonCode: 0, sessionPresent: false },
        { protocolVersion: 5 },
      )
      const mute = await server(connack)
      service = new Service(mute.url, env)
      await service.says('connected')
      expect(await service.end()).toBe(0)
      expect(service.said).not.toContain('listening')
      mute.server.close()
    })

    it('exits with 1 if the broker is not available', async () => {
      service = new Service(`mqtt://127.0.0.1:${await freePort()}`, env, 'ignore')
      expect(await service.exitCode()).toBe(1)
    })
  },
)

it('a second SIGTERM ends a process whose handler never ends, even with a drain time of one hour', async () => {
  const broker = await Mosquitto.start()
  service = new Service(broker.url, { HANDLER_TURNS: 'Infinity', DRAIN_TIMEOUT_MS: '3600000' })
  await service.says('listening')
  await service.says('connected')
  const client = await connectAsync(broker.url)
  while (!service.said.includes('handling')) await client.publishAsync('work', '1', { qos: 1 })
  expect(await service.insist()).toBe('SIGTERM')
  expect(service.said).not.toContain('closed')
  await client.endAsync(true)
  await broker.stop()
})
