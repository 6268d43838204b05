import 'reflect-metadata'
import { Controller, Inject } from '@nestjs/common'
import { EventPattern } from '@nestjs/microservices'
import { expect, it } from 'vitest'
import { MqttService } from '../../src/index.js'
import { ScriptedPeer } from '../../src/testing/index.js'
import { responseTo } from '../support/asking.js'
import { Gate } from '../support/gate.js'
import { startMicroservice } from '../support/nest-app.js'
import { json } from '../support/subscriber-on-peer.js'

const story: unknown[] = []
const gates = { 4: new Gate(), 5: new Gate() }

it.each([5, 4] as const)(
  'the first request of a connection, sent while it drains, receives its response on version %i',
  async protocolVersion => {
    story.length = 0
    const gate = gates[protocolVersion]

    @Controller()
    class WorkController {
      constructor(@Inject(MqttService) private readonly mqtt: MqttService) {}

      @EventPattern<string>('work')
      async onWork(): Promise<void> {
        await gate.pass()
        story.push(await this.mqtt.request('ask', 1).catch((error: unknown) => error))
      }
    }
    const peer = new ScriptedPeer()
    const starting = startMicroservice(
      { createStream: peer.createStream, protocolVersion, keepalive: 0 },
      { controllers: [WorkController] },
    )
    const connection = await peer.accept()
    await connection.grant()
    const { app } = await starting
    connection.send(json('work', 1, { qos: 1, messageId: 1 }))
    await gate.reached()
    const closed = app.close()
    const { messageId = 0 } = await connection.find('unsubscribe')
    connection.send({ cmd: 'unsuback', messageId, granted: protocolVersion === 5 ? [0] : [] })
    gate.open()
    const outcome = await Promise.race([connection.grant(), closed])
    expect(outcome).toMatchObject({ cmd: 'subscribe' })
    const request = await connection.expect('publish')
    if (protocolVersion === 5) connection.send(responseTo(request, { value: 'response' }))
    else {
      const { id } = JSON.parse(request.payload.toString())
      connection.send(json('ask/reply', { id, response: 'response', isDisposed: true }))
    }
    await closed
    expect(story).toEqual(['response'])
  },
)
