import { afterEach, describe, expect, it } from 'vitest'
import { MqttClient } from '../../src/client/mqtt-client.js'
import { type PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { json } from '../support/subscriber-on-peer.js'

const clients: MqttClient[] = []
afterEach(() => Promise.all(clients.splice(0).map(client => client.close())))

/** A client that responds to requests on `ask` and `other`, and the end of its broker. */
async function responder(handler: () => unknown): Promise<PeerConnection> {
  const peer = new ScriptedPeer()
  const { createStream } = peer
  const connecting = MqttClient.connect({
    createStream,
    protocolVersion: 5,
    drainTimeoutMs: 50,
    keepalive: 0,
  })
  const connection = await peer.accept()
  const client = await connecting
  clients.push(client)
  client.respond('ask', handler)
  await connection.grant()
  client.respond('other', () => 'still here')
  await connection.grant()
  return connection
}

const ask = (connection: PeerConnection, topic: string): void =>
  connection.send(
    json(topic, 1, { properties: { responseTopic: 'responses', correlationData: Buffer.from('1') } }),
  )

async function nextResponse(connection: PeerConnection) {
  const { payload, properties } = await connection.find('publish')
  return { text: String(payload), status: { ...properties?.userProperties }['status'] }
}

const iterable = (iterator: object) => ({ [Symbol.asyncIterator]: () => iterator })

describe('an async iterable that a handler returns', () => {
  it.each([
    ['returns no promise', () => ({ done: true })],
    ['returns nothing', () => undefined],
    [
      'throws',
      () => {
        throw new Error('return')
      },
    ],
    ['rejects', () => Promise.reject(new Error('return'))],
  ])('is responded to with its value if its return() %s', async (_what, end) => {
    const results = [{ value: 7, done: false }, { done: true }]
    const connection = await responder(() => iterable({ next: async () => results.shift(), return: end }))
    ask(connection, 'ask')
    expect(await nextResponse(connection)).toEqual({ text: '7', status: undefined })
  })

  it.each([5, undefined, null, 'x'])('fails if its next() resolves with %s', async result => {
    const connection = await responder(() => iterable({ next: async () => result }))
    ask(connection, 'ask')
    expect((await nextResponse(connection)).status).toBe('error')
    ask(connection, 'other')
    expect((await nextResponse(connection)).text).toBe('"still here"')
  })

  it('stops nothing else if it never ends and never waits', async () => {
    const connection = await responder(async function* () {
      for (;;) yield 1
    })
    ask(connection, 'ask')
    ask(connection, 'other')
    expect((await nextResponse(connection)).text).toBe('"still here"')
  })
})
