import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { MessagePattern } from '@nestjs/microservices'
import { from, type Observable } from 'rxjs'
import { afterEach, expect, it } from 'vitest'
import { ScriptedPeer } from '../../src/testing/index.js'
import { publishesOf } from '../support/asking.js'
import { eventually } from '../support/eventually.js'
import { startMicroservice } from '../support/nest-app.js'
import { json } from '../support/subscriber-on-peer.js'

@Controller()
class LargeController {
  @MessagePattern('several')
  several(): Observable<string> {
    return from(['a', 'x'.repeat(2_000), 'b'])
  }
}

let close: () => Promise<void>
afterEach(() => close())

it('a stream with a response that is too large for the broker ends with an error, not as complete', async () => {
  const peer = new ScriptedPeer()
  const starting = startMicroservice(
    { createStream: peer.createStream, protocolVersion: 5, keepalive: 0, drainTimeoutMs: 10 },
    { controllers: [LargeController] },
  )
  const connection = await peer.accept({ properties: { maximumPacketSize: 1_000 } })
  await connection.grant()
  const { app } = await starting
  close = () => app.close()
  connection.send(
    json('several', 1, {
      properties: {
        responseTopic: 'responses/1',
        correlationData: Buffer.from([1]),
        userProperties: { stream: 'true' },
      },
    }),
  )
  await connection.grant()
  const statuses = () =>
    publishesOf(connection).map(({ properties }) => ({ ...properties?.userProperties })['status'])
  await eventually(() => statuses().some(status => status !== 'next'))
  expect(statuses().at(-1)).toBe('error')
  expect(statuses()).not.toContain('end')
})
