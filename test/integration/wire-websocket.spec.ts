import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MqttClient } from '../../src/client/index.js'
import { eventually } from '../support/eventually.js'
import { OPCODE, type WebSocketConnection, webSocketPeer } from '../support/websocket-peer.js'

const CONNACK = Buffer.from('2003000000', 'hex')
const PUBLISH_A = Buffer.from('300400016100', 'hex')

let peer: Awaited<ReturnType<typeof webSocketPeer>>
let client: MqttClient

beforeEach(async () => {
  peer = await webSocketPeer()
  client = new MqttClient({
    url: peer.url,
    connect: 'background',
    protocolVersion: 5,
    keepalive: 0,
    drainTimeoutMs: 0,
    reconnect: { delayMs: [1], resetAfterMs: 0 },
  })
})
afterEach(async () => {
  await client.close()
  await peer.stop()
})

/** Connection number `count` after its CONNECT. */
async function connection(count = 1): Promise<WebSocketConnection> {
  await eventually(() => (peer.connections[count - 1]?.frames.length ?? 0) > 0)
  return peer.connections[count - 1] ?? expect.fail()
}

async function connected(): Promise<WebSocketConnection> {
  await client.start()
  const first = await connection()
  first.send(OPCODE.binary, CONNACK)
  await client.whenConnected()
  return first
}

describe('a connection by WebSocket', () => {
  it('offers the subprotocol "mqtt", and sends its packets in binary frames', async () => {
    const { request, frames } = await connected()
    await client.publish('a', Buffer.alloc(100))
    await eventually(() => frames.some(({ content }) => content[0] === 0x30))
    expect(request.headers['sec-websocket-protocol']).toBe('mqtt')
    expect(frames[0]?.content[0]).toBe(0x10)
    expect(frames.every(({ opcode }) => opcode === OPCODE.binary)).toBe(true)
  })

  it('reads packets that are divided in any way among frames', async () => {
    const first = await connected()
    const seen: string[] = []
    client.subscribe('#', ({ topic }) => {
      seen.push(topic)
    })
    const bytes = Buffer.concat([PUBLISH_A, PUBLISH_A, PUBLISH_A])
    for (const byte of bytes) first.send(OPCODE.binary, Buffer.from([byte]))
    first.send(OPCODE.binary, bytes)
    first.send(OPCODE.binary, bytes.subarray(0, 7), false)
    first.send(OPCODE.continuation, bytes.subarray(7))
    await eventually(() => seen.length === 9)
    expect(new Set(seen)).toEqual(new Set(['a']))
  })

  it('ends at a text frame, whose content is not read', async () => {
    const seen: string[] = []
    client.subscribe('#', ({ topic }) => {
      seen.push(topic)
    })
    const first = await connected()
    first.send(OPCODE.text, PUBLISH_A)
    await eventually(() => first.isClosed)
    const second = await connection(2)
    second.send(OPCODE.binary, CONNACK)
    await client.whenConnected()
    expect(seen).toEqual([])
  })

  it('is not established by a text frame', async () => {
    await client.start()
    const first = await connection()
    first.send(OPCODE.text, CONNACK)
    await eventually(() => first.isClosed)
    expect(client.stats().connection.connects).toBe(0)
  })
})
