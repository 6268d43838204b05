import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Controller, type INestMicroservice } from '@nestjs/common'
import { EventPattern, Payload, Transport } from '@nestjs/microservices'
import { Test } from '@nestjs/testing'
import { connect } from 'mqtt'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/free-port.js'

const PAGE = readFileSync(fileURLToPath(new URL('../../docs/comparison.md', import.meta.url)), 'utf8')

let broker: EmbeddedBroker

beforeEach(async () => {
  broker = await EmbeddedBroker.start()
})
afterEach(() => broker.stop())

const seen: unknown[] = []
let release: () => void = () => {}

@Controller()
class Overlapping {
  @EventPattern<string>('rooms/+', { qos: 1 })
  onLevel() {
    seen.push('rooms/+')
  }

  @EventPattern<string>('rooms/#', { qos: 1 })
  onAll() {
    seen.push('rooms/#')
  }

  @EventPattern<string>('slow', { qos: 1 })
  onSlow() {
    seen.push('slow')
    return new Promise<void>(resolve => {
      release = resolve
    })
  }

  @EventPattern<string>('text', { qos: 1 })
  onText(@Payload() payload: unknown) {
    seen.push(payload)
  }
}

describe('Transport.MQTT', () => {
  let app: INestMicroservice

  beforeEach(async () => {
    seen.length = 0
    const module = await Test.createTestingModule({ controllers: [Overlapping] }).compile()
    app = module.createNestMicroservice({
      transport: Transport.MQTT,
      options: { url: broker.url },
      logger: false,
    })
    await app.listen()
  })
  afterEach(() => app.close())

  it('runs one of two handlers whose patterns match', async () => {
    await broker.deliver('rooms/7', '1')
    await broker.deliver('text', '"end"')
    await eventually(() => seen.includes('end'))
    expect(seen).toEqual(['rooms/+', 'end'])
  })

  it('acknowledges a QoS 1 message while its handler still runs', async () => {
    await broker.deliver('slow', '1')
    expect(broker.acknowledged.map(({ topic }) => topic)).toContain('slow')
    expect(seen).toEqual(['slow'])
    release()
  })

  it('passes a payload that is not JSON as a string', async () => {
    await broker.deliver('text', '{broken')
    await eventually(() => seen.length > 0)
    expect(seen).toEqual(['{broken'])
  })
})

describe('mqtt', () => {
  it('acknowledges a QoS 1 message when its listener returns, not when its promise settles', async () => {
    const client = connect(broker.url)
    let isDone = false
    client.on('message', async () => {
      await new Promise<void>(resolve => {
        release = resolve
      })
      isDone = true
    })
    await client.subscribeAsync('slow', { qos: 1 })
    await broker.deliver('slow', '1')
    expect(isDone).toBe(false)
    release()
    await client.endAsync()
  })

  it('keeps every publish without a connection', async () => {
    const client = connect(`mqtt://127.0.0.1:${await freePort()}`, { reconnectPeriod: 0 })
    client.on('error', () => {})
    await new Promise<void>(resolve => client.once('close', () => resolve()))
    for (let index = 0; index < 5_000; index += 1) client.publish('rooms/7', 'x')
    expect(client.queue).toHaveLength(5_000)
    client.end(true)
  })
})

describe('docs/comparison.md', () => {
  it.each(['@nestjs/microservices', 'mqtt'])('names the installed version of %s', name => {
    const file = new URL(`../../node_modules/${name}/package.json`, import.meta.url)
    const { version } = JSON.parse(readFileSync(file, 'utf8'))
    expect(PAGE).toContain(`\`${name}\` ${version.split('.').slice(0, 2).join('.')}`)
  })
})
