import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MqttClient, type MqttConnectOptions } from '../../src/client/index.js'
import { CuttableLink } from '../support/cuttable-link.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto, type MosquittoOptions } from '../support/mosquitto.js'
import { startMicroservice } from '../support/nest-app.js'

/** A stream to the broker that the test can cut. */
function cuttable(port: number) {
  const link = new CuttableLink(port)
  return { createStream: link.createStream, cut: () => link.cut() }
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const TOPIC = 'devices/7/status'
const PRESENCE = { topic: TOPIC, online: 'online', offline: 'offline' }

/** Connects with the options of its environment, prints a line, and goes on for ever. */
const DEVICE = `
import { MqttClient } from 'nestjs-mqtt/client'
await MqttClient.connect(JSON.parse(process.env.OPTIONS))
console.log('connected')
setInterval(() => {}, 1_000)
`

let broker: Mosquitto
const open: { close(): Promise<void> }[] = []

async function startBroker(options: MosquittoOptions = {}): Promise<void> {
  await broker?.stop()
  broker = await Mosquitto.start(options)
}

beforeEach(() => startBroker())
afterEach(async () => {
  for (const resource of open.splice(0).reverse()) await resource.close()
  await broker.stop()
})

async function connect(options: Partial<MqttConnectOptions> = {}): Promise<MqttClient> {
  const client = await MqttClient.connect({ url: broker.url, reconnect: { delayMs: [10] }, ...options })
  open.push(client)
  return client
}

/** What a client that is there all the time receives of the presence, and what a new one finds. */
async function observe(): Promise<{ seen: unknown[]; retained(): Promise<unknown> }> {
  const seen: unknown[] = []
  const observer = await connect()
  await observer.subscribe(TOPIC, ({ payload }) => void seen.push(payload)).whenGranted()
  const retained = async (): Promise<unknown> => {
    const late = await connect()
    for await (const { payload, retain } of late.messages(TOPIC)) return retain ? payload : undefined
    return undefined
  }
  return { seen, retained }
}

async function startDevice(options: MqttConnectOptions): Promise<ChildProcess> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', DEVICE], {
    cwd: ROOT,
    env: { ...process.env, OPTIONS: JSON.stringify(options) },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  open.push({
    close: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGKILL')
      await once(child, 'exit')
    },
  })
  if (child.stdout === null) throw new Error('the device has no output')
  for await (const line of createInterface({ input: child.stdout })) if (line === 'connected') break
  return child
}

describe.each([4, 5] as const)('presence on mosquitto, MQTT version %d', protocolVersion => {
  it('is online while the process runs, and offline by the will after kill -9', async () => {
    const { seen, retained } = await observe()
    const device = await startDevice({ url: broker.url, protocolVersion, presence: PRESENCE })
    await eventually(() => seen.length === 1)
    device.kill('SIGKILL')
    await eventually(() => seen.length === 2)
    expect(seen).toEqual(['online', 'offline'])
    expect(await retained()).toBe('offline')
  })

  it('is offline once, and retained, after a clean close', async () => {
    const { seen, retained } = await observe()
    const client = await connect({ protocolVersion, presence: PRESENCE })
    await eventually(() => seen.length === 1)
    await client.close()
    await eventually(() => seen.length === 2)
    expect(await retained()).toBe('offline')
    expect(seen).toEqual(['online', 'offline'])
  })

  it('is offline after a close that follows a drain', async () => {
    const { seen, retained } = await observe()
    const client = await connect({ protocolVersion, presence: PRESENCE })
    await client.drain()
    expect(await retained()).toBe('online')
    await client.close()
    await eventually(() => seen.length === 2)
    expect(await retained()).toBe('offline')
  })

  it('is online again after a restart of the broker', async () => {
    await connect({ protocolVersion, presence: PRESENCE })
    const { seen, retained } = await observe()
    await eventually(() => seen.length === 1)
    await broker.down('SIGKILL')
    await broker.up()
    await eventually(() => seen.length === 2)
    expect(seen).toEqual(['online', 'online'])
    expect(await retained()).toBe('online')
  })

  it('is online again after another client used its Client Identifier for a moment', async () => {
    const { retained } = await observe()
    const options = { protocolVersion, clientId: 'device-7', presence: PRESENCE } as const
    await connect({ ...options, reconnect: { delayMs: [50], verdict: () => 'retry' } })
    const other = await connect({ ...options, reconnect: { delayMs: [3_600_000] } })
    await eventually(() => other.state.status === 'waiting')
    await eventually(async () => (await retained()) === 'online')
  })
})

describe('presence on mosquitto', () => {
  it.each([4, 5] as const)(
    'is right after two clients took over one Client Identifier in turn, MQTT version %d',
    async protocolVersion => {
      const { retained } = await observe()
      const options = { protocolVersion, clientId: 'device-7', presence: PRESENCE } as const
      // Return also after 0x8E, as MQTT 3.1.1 does, which does not name the reason.
      const reconnect = { delayMs: [5], verdict: () => 'retry' as const }
      const first = await connect({ ...options, reconnect })
      const second = await connect({ ...options, reconnect })
      const isStormy = (client: MqttClient): boolean => client.stats().connection.connects >= 10
      await eventually(() => isStormy(first) && isStormy(second))
      await second.close()
      await first.whenConnected()
      const { status } = await first.publish('after', 'the storm', { qos: 1 })
      expect(status).toBe('acknowledged')
      expect(await retained()).toBe('online')
      await first.close()
      expect(await retained()).toBe('offline')
    },
  )

  it('does not publish offline during a short outage if the will is delayed', async () => {
    const { seen } = await observe()
    const { createStream, cut } = cuttable(broker.port)
    const presence = { ...PRESENCE, delaySeconds: 60 }
    const client = await connect({ createStream, clientId: 'device-7', clean: false, presence })
    await eventually(() => seen.length === 1)
    cut()
    await eventually(() => client.stats().connection.connects === 2)
    await eventually(() => seen.length === 2)
    expect(seen).toEqual(['online', 'online'])
  })

  it('explains why it is not announced if the broker stores no retained messages', async () => {
    await startBroker({ config: ['retain_available false'] })
    const lines: string[] = []
    const keep = (line: string): void => void lines.push(line)
    const logger = { error: keep, warn: keep, log: keep, debug: keep }
    const connecting = connect({ protocolVersion: 5, presence: PRESENCE, logger })
    await expect(connecting).rejects.toMatchObject({ code: 'CONNECT_REFUSED', reasonCode: 0x9a })
    expect(lines).toContainEqual(expect.stringContaining('the presence of this client is not announced'))
  })

  it('follows a Nest application from its start to its end', async () => {
    const { seen, retained } = await observe()
    const { app } = await startMicroservice({ url: broker.url, presence: PRESENCE }, {})
    await eventually(() => seen.length === 1)
    await app.close()
    await eventually(() => seen.length === 2)
    expect(seen).toEqual(['online', 'offline'])
    expect(await retained()).toBe('offline')
  })
})
