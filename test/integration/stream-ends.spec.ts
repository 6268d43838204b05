import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { MessagePattern, Transport } from '@nestjs/microservices'
import { Observable } from 'rxjs'
import { expect, it } from 'vitest'
import { handle } from '../../src/index.js'
import { ScriptedPeer } from '../../src/testing/index.js'
import { publishesOf } from '../support/asking.js'
import { eventually } from '../support/eventually.js'
import { startMicroservice } from '../support/nest-app.js'
import { json } from '../support/subscriber-on-peer.js'

const left: string[] = []

@Controller()
class EndlessController {
  @MessagePattern('endless', Transport.MQTT, handle({ timeoutMs: 200 }))
  endless(): Observable<number> {
    return new Observable(subscriber => {
      subscriber.next(1)
      return () => left.push('endless')
    })
  }

  @MessagePattern('forgotten')
  forgotten(): Observable<number> {
    return new Observable(subscriber => {
      subscriber.next(1)
      return () => left.push('forgotten')
    })
  }
}

it('a source of responses is unsubscribed at the time limit of its run, and at the end of a shutdown', async () => {
  const peer = new ScriptedPeer()
  const starting = startMicroservice(
    { createStream: peer.createStream, protocolVersion: 5, drainTimeoutMs: 50, keepalive: 0 },
    { controllers: [EndlessController] },
  )
  const connection = await peer.accept()
  await connection.grant()
  await connection.grant()
  const { app } = await starting
  const properties = {
    responseTopic: 'responses',
    correlationData: Buffer.from('1'),
    userProperties: { stream: 'true' },
  }
  connection.send(json('endless', 1, { properties }))
  await connection.grant()
  await eventually(() => left.includes('endless'))
  await eventually(() => publishesOf(connection).length === 2)
  const statuses = publishesOf(connection).map(packet => ({ ...packet.properties?.userProperties })['status'])
  expect(statuses).toEqual(['next', 'error'])
  connection.send(json('forgotten', 1, { properties: { ...properties, correlationData: Buffer.from('2') } }))
  await eventually(() => publishesOf(connection).length === 3)
  await app.close()
  expect(left).toEqual(['endless', 'forgotten'])
})
