import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { MessagePattern, MqttRecordBuilder, Payload, RpcException } from '@nestjs/microservices'
import { concat, Observable, of, throwError } from 'rxjs'
import type { MqttModuleOptions } from '../../src/index.js'
import { ScriptedPeer } from '../../src/testing/index.js'
import { Gate } from './gate.js'
import { type AppParts, startMicroservice } from './nest-app.js'

/** What the handlers did. */
export const story: unknown[] = []
const held = { gate: new Gate() }

/** A new gate for the slow handler of the next test. */
export function newGate(): Gate {
  held.gate = new Gate()
  story.length = 0
  return held.gate
}

@Controller()
export class RespondingController {
  @MessagePattern('echo')
  echo(@Payload() value: unknown): unknown {
    story.push(['echo', value])
    return value
  }

  @MessagePattern('record')
  record(): unknown {
    return new MqttRecordBuilder({ celsius: 4 })
      .setQoS(1)
      .setRetain(true)
      .setProperties({ userProperties: { trace: 'a' }, messageExpiryInterval: 9 })
      .build()
  }

  @MessagePattern('observed')
  observed(): Observable<number> {
    return new Observable(subscriber => {
      subscriber.next(1)
      return () => story.push('unsubscribed')
    })
  }

  @MessagePattern('generated')
  async *generated(): AsyncGenerator<number> {
    try {
      yield 1
      await held.gate.pass()
      yield 2
      yield 3
    } finally {
      story.push('returned')
    }
  }

  @MessagePattern('fails-late')
  failsLate(): Observable<number> {
    return concat(
      of(1, 2),
      throwError(() => new RpcException({ code: 'TOO_WARM' })),
    )
  }

  @MessagePattern('slow')
  async slow(): Promise<string> {
    story.push('slow')
    await held.gate.pass()
    return 'done'
  }
}

/** An application that responds, whose broker is a scripted peer that has granted every filter. */
export async function respondingApp(
  filters: number,
  parts: AppParts,
  options: MqttModuleOptions = {},
  isResumed = false,
) {
  const peer = new ScriptedPeer()
  const starting = startMicroservice(
    {
      createStream: peer.createStream,
      protocolVersion: 5,
      keepalive: 0,
      drainTimeoutMs: 10,
      reconnect: { delayMs: [1] },
      ...options,
    },
    parts,
  )
  const connection = await peer.accept({ sessionPresent: isResumed })
  // MQTT 3.1.1 has no Subscription Identifiers, and one packet for all filters.
  const packets = options.protocolVersion === 4 ? 1 : filters
  for (let packet = 0; packet < packets; packet += 1) await connection.grant()
  return { peer, connection, ...(await starting) }
}
