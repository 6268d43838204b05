import { afterEach, describe, expect, it } from 'vitest'
import { brokerProfiles, MqttClient, type MqttConnectOptions } from '../../src/client/index.js'
import { ScriptedPeer } from '../../src/testing/index.js'

const clients: MqttClient[] = []
afterEach(() => Promise.all(clients.splice(0).map(client => client.close())))

async function connected(options: Partial<MqttConnectOptions>) {
  const peer = new ScriptedPeer()
  const client = new MqttClient({ createStream: peer.createStream, drainTimeoutMs: 0, ...options })
  clients.push(client)
  const started = client.start()
  const connection = await peer.accept()
  await started
  return { client, connection }
}

describe('a client of MQTT 3.1.1 with the limits of its broker', () => {
  it('rejects QoS 2, retained and large messages in place of a lost connection', async () => {
    const { client, connection } = await connected({ ...brokerProfiles.azureEventGrid, protocolVersion: 4 })
    await expect(client.publish('a', 'x', { qos: 2 })).rejects.toMatchObject({ code: 'QOS_NOT_SUPPORTED' })
    await expect(client.publish('a', 'x', { retain: true })).rejects.toMatchObject({
      code: 'RETAIN_NOT_SUPPORTED',
    })
    const large = client.publish('a', Buffer.alloc(524_288))
    await expect(large).rejects.toMatchObject({ code: 'PACKET_TOO_LARGE' })
    expect(connection.received.map(({ cmd }) => cmd)).toEqual(['connect'])
  })

  it('rejects a Shared Subscription that the broker would grant and never serve', async () => {
    const { client, connection } = await connected({ ...brokerProfiles.rabbitMq, protocolVersion: 4 })
    const subscription = client.subscribe('a', () => {}, { sharedGroup: 'billing' })
    await expect(subscription.whenGranted()).rejects.toMatchObject({
      code: 'SUBSCRIBE_REFUSED',
      reasonCode: 0x9e,
    })
    expect(connection.received.map(({ cmd }) => cmd)).toEqual(['connect'])
  })

  it('has no more publishes in flight than the broker takes', async () => {
    const { client, connection } = await connected({
      protocolVersion: 4,
      brokerLimits: { ...brokerProfiles.awsIotCore.brokerLimits, receiveMaximum: 2 },
    })
    const outcomes = ['a', 'b', 'c'].map(topic =>
      client.publish(topic, 'x', { qos: 1, whenBlocked: 'queue' }),
    )
    const first = await connection.find('publish')
    await connection.find('publish')
    expect(connection.received.filter(({ cmd }) => cmd === 'publish')).toHaveLength(2)
    if (first.messageId === undefined) throw new Error('the publish has no identifier')
    connection.send({ cmd: 'puback', messageId: first.messageId })
    await connection.find('publish')
    await expect(outcomes[0]).resolves.toMatchObject({ status: 'acknowledged' })
    expect(client.state).toMatchObject({ session: { limits: { receiveMaximum: 2, maximumQoS: 1 } } })
  })
})
