import 'reflect-metadata'
import { Controller, Inject, Injectable, type OnModuleInit } from '@nestjs/common'
import { EventPattern } from '@nestjs/microservices'
import { beforeEach, describe, expect, it } from 'vitest'
import { type MqttModuleOptions, MqttService } from '../../src/index.js'
import { type PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { responseTo } from '../support/asking.js'
import { eventually } from '../support/eventually.js'
import { Gate } from '../support/gate.js'
import { startMicroservice } from '../support/nest-app.js'
import { message } from '../support/session-on-peer.js'

const story: unknown[] = []
let gate = new Gate()
let peer = new ScriptedPeer()

beforeEach(() => {
  story.length = 0
  gate = new Gate()
  peer = new ScriptedPeer()
})

@Controller()
class WorkController {
  constructor(@Inject(MqttService) private readonly mqtt: MqttService) {}

  @EventPattern<string>('work')
  async onWork(): Promise<void> {
    await gate.pass()
    story.push(await this.mqtt.request('ask', 'in the handler').catch((error: unknown) => error))
  }
}

@Injectable()
class Settings implements OnModuleInit {
  constructor(@Inject(MqttService) private readonly mqtt: MqttService) {}

  async onModuleInit(): Promise<void> {
    story.push(await this.mqtt.request('settings', 'at the start'))
  }
}

const options = () => ({ createStream: peer.createStream, protocolVersion: 5, keepalive: 0 }) as const

async function respondToNext(connection: PeerConnection, value: unknown) {
  const request = await connection.find('publish')
  connection.send(responseTo(request, { value }))
  return request
}

it('a request in onModuleInit receives its response, while the messages for the handlers wait', async () => {
  const starting = startMicroservice(options(), { controllers: [WorkController], providers: [Settings] })
  const connection = await peer.accept()
  expect(await connection.grant()).toMatchObject({ subscriptions: [{ topic: 'work' }] })
  expect(await connection.grant()).toMatchObject({
    subscriptions: [{ topic: expect.stringMatching(/^nestjs-mqtt\/responses\//) }],
  })
  connection.send(message('work', { payload: '1' }))
  const settings = await connection.find('publish')
  expect(settings.topic).toBe('settings')
  connection.send(responseTo(settings, { value: { celsius: 5 } }))
  const { app } = await starting
  expect(story).toEqual([{ celsius: 5 }])
  await gate.reached()
  gate.open()
  await respondToNext(connection, 'response')
  await eventually(() => story.length === 2)
  connection.cut()
  await app.close()
})

/** An application whose connection has sent a request, and whose handler runs. */
async function atWork(more: MqttModuleOptions) {
  const starting = startMicroservice({ ...options(), ...more }, { controllers: [WorkController] })
  const connection = await peer.accept()
  await connection.grant()
  const { app, mqtt } = await starting
  const first = mqtt.request('ask', 'before')
  await connection.grant()
  await respondToNext(connection, 'first')
  expect(await first).toBe('first')
  connection.send(message('work', { payload: '1', qos: 1, messageId: 1 }))
  await gate.reached()
  return { app, connection }
}

describe('a request of a handler that the closing application waits for', () => {
  it('receives its response', async () => {
    const { app, connection } = await atWork({})
    const closed = app.close()
    const { messageId = 0, unsubscriptions } = await connection.find('unsubscribe')
    expect(unsubscriptions).toEqual(['work'])
    connection.send({ cmd: 'unsuback', messageId, granted: [0] })
    gate.open()
    expect(await respondToNext(connection, 'second')).toMatchObject({
      payload: Buffer.from('"in the handler"'),
    })
    expect(await connection.find('puback')).toMatchObject({ messageId: 1 })
    await closed
    expect(story).toEqual(['second'])
  })

  it('receives its response if the session is persistent', async () => {
    const { app, connection } = await atWork({ clean: false, clientId: 'kept' })
    const closed = app.close()
    gate.open()
    await respondToNext(connection, 'second')
    expect(await connection.find('puback')).toMatchObject({ messageId: 1 })
    await closed
    expect(story).toEqual(['second'])
    expect(connection.received.filter(({ cmd }) => cmd === 'unsubscribe')).toEqual([])
  })
})
