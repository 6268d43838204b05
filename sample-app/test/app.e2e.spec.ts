import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { connectAsync, type MqttClient } from 'mqtt'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { eventually } from '../../test/support/eventually.js'

const SAMPLE = fileURLToPath(new URL('..', import.meta.url))
const LIBRARY = fileURLToPath(new URL('../..', import.meta.url))
const WELCOME_ENDS = 'Press Ctrl-C to stop'

let app: ChildProcess
let client: MqttClient
let httpUrl: string

beforeAll(async () => {
  if (!existsSync(`${LIBRARY}/dist/index.js`)) execFileSync('npm', ['run', 'build'], { cwd: LIBRARY })
  execFileSync('npm', ['run', 'build'], { cwd: SAMPLE })
  const env = { ...process.env, PORT: '0', MQTT_PORT: '0', MQTT_URL: '', SIMULATE: '' }
  app = spawn(process.execPath, ['dist/main.js'], { cwd: SAMPLE, env, stdio: ['ignore', 'pipe', 'inherit'] })
  const output = await outputUntil(app, WELCOME_ENDS)
  httpUrl = found(output, /Trucks +(http:\S+)\/trucks/)
  client = await connectAsync(found(output, /Broker +(mqtt:\S+)/), { protocolVersion: 4 })
})

afterAll(async () => {
  await client?.endAsync(true)
  if (app?.exitCode === null) app.kill('SIGKILL')
})

it('lists the trucks with their last readings', async () => {
  await eventually(async () => (await trucks()).filter(hasReading).length >= 3)
  expect(await trucks()).toContainEqual({
    id: 'truck-1',
    limitCelsius: -15,
    lastReading: { temperatureCelsius: expect.any(Number), at: expect.any(String) },
    alarm: {
      active: false,
      since: expect.any(String),
      temperatureCelsius: expect.any(Number),
      limitCelsius: -15,
    },
  })
})

it('is healthy', async () => {
  const response = await fetch(`${httpUrl}/health`)
  expect(response.status).toBe(200)
  expect(await response.json()).toMatchObject({
    status: 'connected',
    stats: { inbound: { failed: 0 }, subscriptions: { granted: 2, refused: 0 } },
  })
})

it('serves an AsyncAPI document of its topics', async () => {
  const response = await fetch(`${httpUrl}/asyncapi-json`)
  const { operations }: { operations: Record<string, unknown> } = JSON.parse(await response.text())
  expect(Object.keys(operations).toSorted()).toEqual([
    'CommandsController.setLimit',
    'TelemetryController.onTelemetry',
    'send.trucks.truckId.alarm',
  ])
})

it('responds to a command', async () => {
  expect(await command('truck-2', { limitCelsius: -16 })).toMatchObject({
    response: { accepted: true, limitCelsius: -16 },
  })
})

it('refuses a command for a truck that it does not know', async () => {
  expect(await command('nobody', { limitCelsius: -16 })).toMatchObject({
    err: { message: 'there is no truck nobody' },
  })
})

it('refuses a limit that is not a number', async () => {
  expect(await command('truck-2', { limitCelsius: 'cold' })).toMatchObject({
    err: { message: '"limitCelsius" must be a number from -60 to 40' },
  })
})

it('raises an alarm when the temperature stays above the limit', async () => {
  const raised = message('trucks/truck-3/alarm', ({ active }) => active === true)
  await client.subscribeAsync('trucks/truck-3/alarm', { qos: 1 })
  await command('truck-3', { limitCelsius: -40 })
  expect(await raised).toMatchObject({ active: true, limitCelsius: -40 })
})

it('ends by itself on SIGINT', async () => {
  const exit = once(app, 'exit')
  app.kill('SIGINT')
  expect(await exit).toEqual([0, null])
})

/** Sends a request as a client of Nest's built-in MQTT transport does, and waits for the reply. */
async function command(truckId: string, data: unknown): Promise<unknown> {
  const topic = `trucks/${truckId}/commands/set-limit`
  const request = { pattern: topic, data, id: crypto.randomUUID() }
  const reply = message(`${topic}/reply`, ({ id }) => id === request.id)
  await client.subscribeAsync(`${topic}/reply`, { qos: 1 })
  await client.publishAsync(topic, JSON.stringify(request), { qos: 1 })
  return reply
}

/** The first message on a topic that fulfils a condition. */
function message(topic: string, isWanted: (body: Record<string, unknown>) => boolean): Promise<unknown> {
  return new Promise(resolve => {
    const onMessage = (receivedTopic: string, payload: Buffer): void => {
      const body: Record<string, unknown> = JSON.parse(payload.toString())
      if (receivedTopic !== topic || !isWanted(body)) return
      client.off('message', onMessage)
      resolve(body)
    }
    client.on('message', onMessage)
  })
}

async function trucks(): Promise<unknown[]> {
  const body: unknown = await (await fetch(`${httpUrl}/trucks`)).json()
  return Array.isArray(body) ? body : []
}

/** And an alarm state, which comes when several readings agree. */
function hasReading(truck: unknown): boolean {
  return typeof truck === 'object' && truck !== null && 'lastReading' in truck && 'alarm' in truck
}

function outputUntil(child: ChildProcess, end: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let output = ''
    child.stdout?.on('data', (chunk: Buffer) => {
      output += chunk.toString()
      if (output.includes(end)) resolve(output)
    })
    child.once('exit', () => reject(new Error(`the application did not start:\n${output}`)))
  })
}

function found(text: string, pattern: RegExp): string {
  const value = pattern.exec(text)?.[1]
  if (value === undefined) throw new Error(`${pattern} is not in:\n${text}`)
  return value
}
