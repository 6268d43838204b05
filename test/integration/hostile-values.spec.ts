import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { MessagePattern, MqttRecordBuilder, RpcException } from '@nestjs/microservices'
import { firstValueFrom } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { MqttClientProxy } from '../../src/index.js'
import { resolveOptions } from '../../src/options/option-checks.js'
import { ScriptedPeer } from '../../src/testing/index.js'
import { publishesOf } from '../support/asking.js'
import { eventually } from '../support/eventually.js'
import { startMicroservice } from '../support/nest-app.js'
import { json, qos1, subscriberOnPeer } from '../support/subscriber-on-peer.js'

@Controller()
class ThrowingController {
  @MessagePattern('ask')
  ask(): never {
    throw new RpcException({ status: 'error', message: 'x', id: 10n })
  }
}

describe('an unusual value', () => {
  it('an error whose message is not a string only fails its MQTT message', async () => {
    const { session, mqtt, connection } = await subscriberOnPeer({ drainTimeoutMs: 10 })
    mqtt.subscribe('a', () => {
      throw JSON.parse('{"message":{"toString":1}}')
    })
    await connection.grant()
    connection.send(qos1('a', 1))
    expect(await connection.find('puback')).toMatchObject({ messageId: 1 })
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 1, running: 0 })
    await session.close()
  })

  it('an error that JSON cannot encode is still sent as a response', async () => {
    const peer = new ScriptedPeer()
    const starting = startMicroservice(
      { createStream: peer.createStream, protocolVersion: 5, drainTimeoutMs: 10, keepalive: 0 },
      { controllers: [ThrowingController] },
    )
    const connection = await peer.accept()
    await connection.grant()
    const { app } = await starting
    connection.send(json('ask', 1, { properties: { responseTopic: 'responses' } }))
    await eventually(() => publishesOf(connection).length === 1)
    expect(publishesOf(connection)[0]).toMatchObject({
      topic: 'responses',
      properties: { userProperties: { status: 'error' } },
    })
    await app.close()
  })

  it.each([
    ['a text for a number', { messageExpiryInterval: 'x' }],
    ['a Topic Alias of its own', { topicAlias: 7 }],
    ['a Subscription Identifier', { subscriptionIdentifier: 1 }],
  ])('a record with %s among its properties is refused before it is sent', async (_what, properties) => {
    const { session } = await subscriberOnPeer({ drainTimeoutMs: 10 })
    const options = resolveOptions({ url: 'mqtt://unused' })
    const client = new MqttClientProxy({}, { session, options })
    const record = Reflect.apply(MqttRecordBuilder.prototype.setProperties, new MqttRecordBuilder({}), [
      properties,
    ]).build()
    await expect(firstValueFrom(client.emit('e', record))).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    await session.close()
  })
})

describe('a request', () => {
  it('with a Response Topic on MQTT 3.1.1 fails at once', async () => {
    const { session, mqtt } = await subscriberOnPeer({ protocolVersion: 4, drainTimeoutMs: 10 })
    await expect(mqtt.request('a', 1, { protocol: 'mqtt5' })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
    })
    await session.close()
  })

  it('that times out while its reply topic is being subscribed is not sent', async () => {
    const { session, mqtt, connection } = await subscriberOnPeer({ drainTimeoutMs: 10 })
    const asked = mqtt.request('a', 1, { protocol: 'nest', timeoutMs: 20 })
    const subscribe = await connection.expect('subscribe')
    await expect(asked).rejects.toMatchObject({ code: 'TIMEOUT' })
    connection.send({ cmd: 'suback', messageId: subscribe.messageId ?? 0, granted: [1] })
    await mqtt.publish('marker', 1)
    expect((await connection.expect('publish')).topic).toBe('marker')
    await session.close()
  })
})
