import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { MessagePattern, Payload, Transport } from '@nestjs/microservices'
import { expect, it } from 'vitest'
import { handle } from '../../src/index.js'
import { publishesOf } from '../support/asking.js'
import { eventually } from '../support/eventually.js'
import { respondingApp } from '../support/responding-app.js'
import { json } from '../support/subscriber-on-peer.js'

@Controller()
class CodecController {
  @MessagePattern('text', Transport.MQTT, handle({ codec: 'text' }))
  onText(@Payload() value: unknown): unknown {
    return { got: value }
  }

  @MessagePattern('bytes', Transport.MQTT, handle({ codec: 'bytes' }))
  onBytes(@Payload() value: Buffer): unknown {
    return value.toString('hex')
  }
}

it.each([
  ['text', 'on', { response: { got: 'on' } }],
  ['text', 7, { err: expect.objectContaining({ status: 'error' }) }],
  ['bytes', 'AQI=', { response: '0102' }],
  ['bytes', Buffer.from([1, 2]), { response: '0102' }],
])(
  'a request in the envelope to a handler with the codec %s receives a response: %j',
  async (topic, data, expected) => {
    const { app, connection } = await respondingApp(
      2,
      { controllers: [CodecController] },
      { protocolVersion: 4 },
    )
    connection.send(json(topic, { pattern: topic, data, id: 'x' }))
    await eventually(() => publishesOf(connection).length === 1)
    const [reply] = publishesOf(connection)
    expect(reply?.topic).toBe(`${topic}/reply`)
    expect(JSON.parse(String(reply?.payload))).toEqual({ ...expected, isDisposed: true, id: 'x' })
    await app.close()
  },
)
