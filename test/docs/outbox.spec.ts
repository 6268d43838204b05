import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'libsql'
import { connectAsync, type MqttClient } from 'mqtt'
import { afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/free-port.js'
import type { Program } from '../support/lone-package.js'
import { Mosquitto } from '../support/mosquitto.js'
import { scriptedBroker } from '../support/scripted-broker.js'
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
  const peer = await scriptedBroker()
  const first = await Shop.start(peer.url)
  const ordered = first.order('north', 3)
  const packet = await (await peer.accept(0)).expect('publish')
  expect(await ordered).toBe(1)
  await first.program.kill()
  expect(count('shop', 'outbox')).toBe(1)

  await Shop.start(peer.url)
  const connection = await peer.accept(1)
  const repeat = await connection.expect('publish')
  expect(repeat.payload).toEqual(packet.payload)
  expect(repeat.properties?.userProperties).toEqual(packet.properties?.userProperties)
  expect(repeat.properties?.userProperties?.['message-id']).toMatch(/^[\da-f-]{36}$/)
  expect(count('shop', 'outbox')).toBe(1)
  connection.send({ cmd: 'puback', messageId: repeat.messageId ?? 0, reasonCode: 0 })
  await eventually(() => count('shop', 'outbox') === 0)
  peer.close()
})

it('keeps a row that the broker refuses, logs it, and publishes it again before the next row', async () => {
  const peer = await scriptedBroker()
  const shop = await Shop.start(peer.url)
  const connection = await peer.accept(0)
  for (const pieces of [1, 2]) await shop.order('north', pieces)
  const order = async (reasonCode: number) => {
    const { payload, messageId = 0 } = await connection.expect('publish')
    connection.send({ cmd: 'puback', messageId, reasonCode })
    return JSON.parse(payload.toString()).number
  }
  expect([await order(0x87), await order(0), await order(0)]).toEqual([1, 1, 2])
  await eventually(() => count('shop', 'outbox') === 0)
  expect(shop.program.output).toMatch(/WARN \[OutboxRelay\][\s\S]*refused/)
  peer.close()
})

it('takes orders without a broker, stops on SIGTERM, and publishes them when the broker is back', async () => {
  await broker.down()
  const offline = await Shop.start(broker.url)
  for (const name of SHOPS) await offline.order(name, 1)
  await offline.program.printed('attempt 3')
  await offline.program.terminate()
  expect(count('shop', 'outbox')).toBe(3)
  await broker.up()
  await Shop.start(broker.url)
  await eventually(() => count('shop', 'outbox') === 0)
})

it('writes no order if its message cannot be written', async () => {
  const shop = await Shop.start(broker.url)
  expect(await shop.order('not/one/level', 1)).toBeUndefined()
  expect({ orders: count('shop', 'orders'), outbox: count('shop', 'outbox') }).toEqual({
    orders: 0,
    outbox: 0,
  })
})

it('applies a repeat once, and a message without message-id never', async () => {
  const { send, dead, end } = await publisherToWarehouse()
  for (const id of ['a', 'a', 'b', 'a']) await send({ number: 1, pieces: 2 }, { 'message-id': id })
  await send({ number: 2, pieces: 2 }, { origin: 'by hand' })
  await send({ number: 3, pieces: 2 }, { 'message-id': 'c' })
  await eventually(() => count('warehouse', 'parcels') === 3 && dead.length === 1)
  expect(rows('warehouse', 'SELECT number FROM parcels ORDER BY id').flat()).toEqual([1, 1, 3])
  expect(rows('warehouse', 'SELECT shop, pieces FROM demand')).toEqual([['north', 6]])
  expect(rows('warehouse', 'SELECT message_id FROM inbox ORDER BY message_id').flat()).toEqual([
    'a',
    'b',
    'c',
  ])
  await end()
})

it('forgets the key of a message whose work failed, so that a later copy is applied', async () => {
  const { send, dead, end } = await publisherToWarehouse()
  await send({ number: 1, pieces: null }, { 'message-id': 'a' })
  await eventually(() => dead.length === 1)
  expect({ parcels: count('warehouse', 'parcels'), inbox: count('warehouse', 'inbox') }).toEqual({
    parcels: 0,
    inbox: 0,
  })
  await send({ number: 1, pieces: 2 }, { 'message-id': 'a' })
  await eventually(() => count('warehouse', 'parcels') === 1)
  expect(rows('warehouse', 'SELECT shop, pieces FROM demand')).toEqual([['north', 2]])
  await end()
})

/** A running warehouse, and a client that publishes orders and notes the dead letters. */
async function publisherToWarehouse() {
  await startWarehouse()
  const client = await connectAsync(broker.url, { protocolVersion: 5 })
  const dead: string[] = []
  client.on('message', (_topic, payload) => dead.push(payload.toString()))
  await client.subscribeAsync('dead/orders', { qos: 1 })
  const send = (order: object, userProperties: Record<string, string>) =>
    client.publishAsync('shops/north/orders', JSON.stringify({ shop: 'north', ...order }), {
      qos: 1,
      properties: { userProperties },
    })
  return { send, dead, end: () => client.endAsync() }
}
