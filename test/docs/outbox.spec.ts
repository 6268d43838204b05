import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'libsql'
import { connectAsync, type MqttClient } from 'mqtt'
import { afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import { PeerConnection } from '../../src/testing/scripted-peer.js'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/free-port.js'
import type { Program } from '../support/lone-package.js'
import { Mosquitto } from '../support/mosquitto.js'
import { SeededRandom } from '../support/seeded-random.js'
import { DocApp } from './doc-app.js'

/** A longer run: OUTBOX_KILLS=100 */
const KILLS = Number(process.env['OUTBOX_KILLS'] ?? 5)
/** Another run: OUTBOX_SEED=… */
const SEED = Number(process.env['OUTBOX_SEED'] ?? 20_261_127)
const SHOPS = ['north', 'south', 'west'] as const
/** A relay is killed after this many messages, at most. */
const MOST_MESSAGES = 40

const page = new DocApp('docs/outbox.md')
let folder: string
let broker: Mosquitto
let running: Program[]

beforeAll(async () => {
  page.write()
  await page.compile()
}, 120_000)
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-outbox-'))
  broker = await Mosquitto.start()
  running = []
})
afterEach(async () => {
  await Promise.all(running.map(program => program.kill()))
  await broker.stop()
  rmSync(folder, { recursive: true, force: true })
})

const file = (name: string) => join(folder, `${name}.db`)

function start(name: string, env: Readonly<Record<string, string>>): Program {
  const files = { SHOP_DB: file('shop'), WAREHOUSE_DB: file('warehouse') }
  const program = page.program(`dist/${name}/main.js`, { ...files, NO_COLOR: '1', ...env })
  running.push(program)
  return program
}

async function startWarehouse(): Promise<Program> {
  const warehouse = start('warehouse', { MQTT_URL: broker.url })
  await warehouse.printed('Nest microservice successfully started')
  return warehouse
}

/** The shop on a port of its own. */
class Shop {
  private constructor(
    readonly program: Program,
    private readonly url: string,
  ) {}

  static async start(mqttUrl: string): Promise<Shop> {
    const port = await freePort()
    const shop = new Shop(
      start('shop', { MQTT_URL: mqttUrl, PORT: String(port) }),
      `http://localhost:${port}`,
    )
    await shop.program.printed('Nest application successfully started')
    await eventually(() => shop.isUp())
    return shop
  }

  /** Resolves with the number of the order; undefined if the shop was killed meanwhile. */
  async order(shop: string, pieces: number): Promise<number | undefined> {
    const headers = { connection: 'close', 'content-type': 'application/json' }
    const request = { method: 'POST', headers, body: JSON.stringify({ shop, pieces }) }
    return fetch(`${this.url}/orders`, request).then(
      async response => Object(await response.json())['number'],
      () => undefined,
    )
  }

  private isUp(): Promise<boolean> {
    return fetch(this.url, { headers: { connection: 'close' } }).then(
      () => true,
      () => false,
    )
  }
}

/** Rows of a database, which a service may use at the same time. */
function rows(name: string, sql: string): unknown[] {
  const database = new Database(file(name), { timeout: 5_000 })
  try {
    return database.prepare(sql).raw().all()
  } finally {
    database.close()
  }
}

const count = (name: string, table: string) => Number(rows(name, `SELECT count(*) FROM ${table}`).flat()[0])

/** An independent subscriber that notes the numbers of the orders, by topic, in order. */
class Observer {
  readonly numbers = new Map<string, number[]>()
  total = 0

  constructor(client: MqttClient) {
    client.on('message', (topic, payload) => {
      const { number } = JSON.parse(payload.toString())
      this.numbers.set(topic, [...(this.numbers.get(topic) ?? []), number])
      this.total += 1
    })
  }

  has(number: number | undefined): boolean {
    return [...this.numbers.values()].some(numbers => numbers.some(other => other === number))
  }

  /** Without repeats. */
  get firsts(): [string, number[]][] {
    return [...this.numbers].map(([topic, numbers]) => [topic, [...new Set(numbers)]])
  }
}

/** Orders until the relay has published this many more messages, and ends the process with SIGKILL. */
async function orderUntilKilled(shop: Shop, observer: Observer, random: SeededRandom): Promise<number[]> {
  const limit = observer.total + 1 + random.below(MOST_MESSAGES)
  const taken: number[] = []
  let isKilled = false
  const killed = eventually(() => observer.total >= limit).then(() => {
    isKilled = true
    return shop.program.kill()
  })
  while (!isKilled) {
    const number = await shop.order(random.pick(SHOPS), 1 + random.below(9))
    if (number !== undefined) taken.push(number)
  }
  await killed
  return taken
}

it(`publishes every order in order, and applies each once, over ${KILLS} times kill -9 of both services`, {
  timeout: 60_000 + KILLS * 10_000,
}, async () => {
  const random = new SeededRandom(SEED)
  const subscriber = await connectAsync(broker.url, { protocolVersion: 5 })
  const observer = new Observer(subscriber)
  await subscriber.subscribeAsync('shops/+/orders', { qos: 1 })
  let warehouse = await startWarehouse()
  const taken: number[] = []
  for (let kill = 0; kill < KILLS; kill += 1) {
    const shop = await Shop.start(broker.url)
    taken.push(...(await orderUntilKilled(shop, observer, random)))
    await warehouse.kill()
    warehouse = await startWarehouse()
  }
  const shop = await Shop.start(broker.url)
  // Messages of one topic arrive in order, so nothing follows these.
  const last = await Promise.all(SHOPS.map(name => shop.order(name, 1)))
  await eventually(() => count('shop', 'outbox') === 0)
  await eventually(() => {
    const parcels = rows('warehouse', 'SELECT number FROM parcels').flat()
    return last.every(number => parcels.includes(number) && observer.has(number))
  })

  const orders = rows('shop', 'SELECT shop, number FROM orders ORDER BY shop, number')
  const numbers = rows('shop', 'SELECT number FROM orders').flat()
  expect(taken.filter(number => !numbers.includes(number))).toEqual([])
  const published = new Map(observer.firsts)
  const topics = SHOPS.map(shop => [
    `shops/${shop}/orders`,
    rows('shop', `SELECT number FROM orders WHERE shop = '${shop}' ORDER BY number`).flat(),
  ])
  expect(topics.map(([topic]) => [topic, published.get(String(topic))])).toEqual(topics)
  expect(rows('warehouse', 'SELECT shop, number FROM parcels ORDER BY shop, id')).toEqual(orders)
  expect(rows('warehouse', 'SELECT shop, pieces FROM demand ORDER BY shop')).toEqual(
    rows('shop', 'SELECT shop, sum(pieces) FROM orders GROUP BY shop ORDER BY shop'),
  )
  await subscriber.endAsync()
})

it('publishes a row again, with the same message-id, after a crash before its acknowledgement', async () => {
  const connections: PeerConnection[] = []
  const server = createServer(socket => connections.push(new PeerConnection(socket)))
  const port = await freePort()
  await once(server.listen(port, '127.0.0.1'), 'listening')
  const publishOf = async (index: number) => {
    await eventually(() => connections.length > index)
    const connection = connections[index]
    if (connection === undefined) throw new Error('the relay is not connected')
    await connection.expect('connect')
    connection.send({ cmd: 'connack', reasonCode: 0, sessionPresent: false })
    return { connection, packet: await connection.expect('publish') }
  }

  const first = await Shop.start(`mqtt://127.0.0.1:${port}`)
  const ordered = first.order('north', 3)
  const { packet } = await publishOf(0)
  expect(await ordered).toBe(1)
  await first.program.kill()
  expect(count('shop', 'outbox')).toBe(1)

  await Shop.start(`mqtt://127.0.0.1:${port}`)
  const { connection, packet: repeat } = await publishOf(1)
  expect(repeat.payload).toEqual(packet.payload)
  expect(repeat.properties?.userProperties).toEqual(packet.properties?.userProperties)
  expect(repeat.properties?.userProperties?.['message-id']).toMatch(/^[\da-f-]{36}$/)
  expect(count('shop', 'outbox')).toBe(1)
  connection.send({ cmd: 'puback', messageId: repeat.messageId ?? 0, reasonCode: 0 })
  await eventually(() => count('shop', 'outbox') === 0)
  server.close()
})

it('applies a repeat once, and a message without message-id never', async () => {
  await startWarehouse()
  const publisher = await connectAsync(broker.url, { protocolVersion: 5 })
  const dead: string[] = []
  publisher.on('message', (_topic, payload) => dead.push(payload.toString()))
  await publisher.subscribeAsync('dead/orders', { qos: 1 })
  const send = (number: number, userProperties: Record<string, string>) =>
    publisher.publishAsync('shops/north/orders', JSON.stringify({ number, shop: 'north', pieces: 2 }), {
      qos: 1,
      properties: { userProperties },
    })
  for (const id of ['a', 'a', 'b', 'a']) await send(1, { 'message-id': id })
  await send(2, { origin: 'by hand' })
  await send(3, { 'message-id': 'c' })
  await eventually(() => count('warehouse', 'parcels') === 3 && dead.length === 1)
  expect(rows('warehouse', 'SELECT number FROM parcels ORDER BY id').flat()).toEqual([1, 1, 3])
  expect(rows('warehouse', 'SELECT shop, pieces FROM demand')).toEqual([['north', 6]])
  expect(rows('warehouse', 'SELECT message_id FROM inbox ORDER BY message_id').flat()).toEqual([
    'a',
    'b',
    'c',
  ])
  await publisher.endAsync()
})
