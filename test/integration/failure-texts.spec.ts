import { Controller } from '@nestjs/common'
import { EventPattern, MessagePattern, Transport } from '@nestjs/microservices'
import { describe, expect, it } from 'vitest'
import { deadLetter, handle } from '../../src/index.js'
import { ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { holdClock } from '../support/held-clock.js'
import { startMicroservice } from '../support/nest-app.js'
import { finish } from '../support/publisher-on-peer.js'
import { acks, json, qos1, settle, subscriberOnPeer } from '../support/subscriber-on-peer.js'

const isControl = (character: string): boolean =>
  character < ' ' || (character >= '\u007f' && character < '\u00a0')

describe('the text of a failure', () => {
  holdClock()

  it.each([
    ['a NUL', Buffer.from('\u0000')],
    ['an end of a line', Buffer.from('a\nb')],
    ['an escape sequence', Buffer.from('\u001b[31m')],
  ])(
    'in a dead letter contains no %s of the payload, on which brokers close the connection',
    async (_what, payload) => {
      const parts = await subscriberOnPeer()
      const { mqtt, connection } = parts
      const parse = ({ payload: bytes }: { payload: Buffer }): unknown => JSON.parse(bytes.toString())
      mqtt.subscribe('a', parse, { codec: 'bytes', onFailure: deadLetter('dead') })
      await connection.grant()
      connection.send({ ...qos1('a', 1), payload })
      await settle(mqtt)
      const letter = await connection.find('publish')
      const reason = String(letter.properties?.userProperties?.['dead-letter-reason'])
      expect([...reason].filter(isControl)).toEqual([])
      connection.send({ cmd: 'puback', messageId: letter.messageId ?? 0, reasonCode: 0 })
      await settle(mqtt)
      await finish(parts)
    },
  )

  it('does not quote a payload that cannot be decoded, in the log or in the dead letter', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection, log } = parts
    mqtt.subscribe('a', () => {}, { onFailure: deadLetter('dead') })
    await connection.grant()
    connection.send({ ...qos1('a', 1), payload: 'secret' })
    await settle(mqtt)
    const letter = await connection.find('publish')
    expect(log.visible.join('\n')).not.toContain('secret')
    expect(letter.properties?.userProperties?.['dead-letter-reason']).not.toContain('secret')
    connection.send({ cmd: 'puback', messageId: letter.messageId ?? 0, reasonCode: 0 })
    await settle(mqtt)
    await finish(parts)
  })
})

const asked: number[] = []

@Controller()
class FailingController {
  @EventPattern<string>('event', Transport.MQTT, handle({ onFailure: deadLetter('dead') }))
  event(): never {
    throw new Error('broken')
  }

  @MessagePattern('ask', Transport.MQTT, handle({ timeoutMs: 5, retries: { attempts: 2, delayMs: [0] } }))
  ask(): Promise<never> {
    asked.push(1)
    return new Promise<never>(() => {})
  }
}

describe('through Nest', () => {
  async function started() {
    asked.length = 0
    const peer = new ScriptedPeer()
    const starting = startMicroservice(
      { createStream: peer.createStream, protocolVersion: 5, drainTimeoutMs: 10, keepalive: 0 },
      { controllers: [FailingController] },
    )
    const connection = await peer.accept()
    for (let filter = 0; filter < 2; filter += 1) await connection.grant()
    return { ...(await starting), connection }
  }

  it('a dead letter has the text of the exception filter as its reason', async () => {
    const { app, connection } = await started()
    connection.send(qos1('event', 1))
    const letter = await connection.find('publish')
    expect(letter.properties?.userProperties?.['dead-letter-reason']).toBe('Internal server error')
    connection.send({ cmd: 'puback', messageId: letter.messageId ?? 0, reasonCode: 0 })
    await eventually(() => acks(connection).length === 1)
    await app.close()
  })

  it('a request whose handler exceeds its time limit receives that error, and is not retried', async () => {
    const { app, connection, mqtt } = await started()
    connection.send(json('ask', 1, { qos: 0, properties: { responseTopic: 'responses' } }))
    await eventually(() => mqtt.stats().inbound.handled === 1)
    expect(asked).toHaveLength(1)
    const replies = () => connection.received.filter(packet => packet.cmd === 'publish')
    await eventually(() => replies().length > 0)
    expect(replies()).toHaveLength(1)
    expect(replies()[0]).toMatchObject({
      topic: 'responses',
      properties: { userProperties: { status: 'error' } },
    })
    await app.close()
  })
})
