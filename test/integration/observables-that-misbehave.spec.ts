import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { Observable, range, tap } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { OnMqttEvent, OnMqttRequest } from '../../src/index.js'
import { type PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { failOnEscapedErrors } from '../support/hostile-session.js'
import { startMicroservice } from '../support/nest-app.js'
import { json, streamRequest } from '../support/subscriber-on-peer.js'

failOnEscapedErrors()

const LINE =
  'error [MqttTransport] the teardown of an Observable that a handler returned failed: cannot be stopped'

/** Emits one value, and throws when nobody wants another one. */
const unstoppable = () =>
  new Observable<number>(subscriber => {
    subscriber.next(1)
    return () => {
      throw new Error('cannot be stopped')
    }
  })

let taken = 0

@Controller()
class OddController {
  @OnMqttEvent('event', { timeoutMs: 20, qos: 1 })
  onEvent() {
    return unstoppable()
  }

  @OnMqttEvent('open event')
  onOpenEvent() {
    return unstoppable()
  }

  @OnMqttRequest('limited', { timeoutMs: 20 })
  limited() {
    return unstoppable()
  }

  @OnMqttRequest('open')
  open() {
    return unstoppable()
  }

  @OnMqttRequest('many')
  many() {
    return range(0, 100_000).pipe(
      tap(() => {
        taken += 1
      }),
    )
  }
}

async function started() {
  const peer = new ScriptedPeer()
  const starting = startMicroservice(
    { createStream: peer.createStream, protocolVersion: 5, keepalive: 0, drainTimeoutMs: 200 },
    { controllers: [OddController] },
  )
  const connection = await peer.accept({ properties: { subscriptionIdentifiersAvailable: false } })
  await connection.grant()
  return { connection, ...(await starting) }
}

function ask(connection: PeerConnection, topic: string): void {
  connection.send(streamRequest(topic, 1))
}

async function statusOf(connection: PeerConnection) {
  const { payload, properties } = await connection.find('publish')
  return `${properties?.userProperties?.['status']} ${payload}`
}

describe('an Observable whose teardown throws', () => {
  it('ends with the time limit of its event handler', async () => {
    const { app, connection, logger } = await started()
    connection.send(json('event', 1, { qos: 1, messageId: 7 }))
    expect(await connection.find('puback')).toMatchObject({ messageId: 7 })
    expect(logger.lines).toContain(LINE)
    await app.close()
  })

  it('ends with the time limit of its request handler, and the requester receives an error', async () => {
    const { app, connection, logger, mqtt } = await started()
    ask(connection, 'limited')
    await connection.grant()
    expect(await statusOf(connection)).toBe('next 1')
    expect(await statusOf(connection)).toContain('error')
    expect(logger.lines).toContain(LINE)
    await eventually(() => mqtt.stats().requests.openStreams === 0)
    await app.close()
  })

  it.each(['open', 'open event'])('does not keep the application from closing (%s)', async topic => {
    const { app, connection, logger, mqtt } = await started()
    ask(connection, topic)
    await eventually(() => mqtt.stats().inbound.received > 0)
    if (topic === 'open') await connection.grant()
    await app.close()
    expect(logger.lines).toContain(LINE)
    expect(mqtt.stats().requests.openStreams).toBe(0)
  })
})

describe('an Observable that emits too many values at once', () => {
  it('is stopped while it emits them', async () => {
    const { app, connection } = await started()
    taken = 0
    ask(connection, 'many')
    await connection.grant()
    let last = ''
    while (!last.startsWith('error')) last = await statusOf(connection)
    expect(last).toContain('error')
    expect(taken).toBe(1_001)
    await app.close()
  })
})
