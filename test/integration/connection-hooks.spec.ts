import 'reflect-metadata'
import { Controller, Injectable, Module, type OnModuleInit, Scope } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { Payload } from '@nestjs/microservices'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  type ConnectedSession,
  MqttBatch,
  MqttError,
  type MqttMessage,
  MqttModule,
  type MqttModuleOptions,
  MqttService,
  MqttTopic,
  OnMqttConnect,
  OnMqttDisconnect,
  OnMqttEvent,
  OnMqttSessionLost,
  OnMqttUnmatched,
  TopicParam,
} from '../../src/index.js'
import { EmbeddedBroker, type PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { type AppParts, CollectingLogger, startMicroservice } from '../support/nest-app.js'
import { message } from '../support/session-on-peer.js'
import { acks, qos1 } from '../support/subscriber-on-peer.js'

const calls: unknown[] = []
const closing: (() => Promise<unknown>)[] = []

beforeEach(() => {
  calls.length = 0
})
afterEach(async () => {
  for (const close of closing.splice(0)) await close()
})

/** An application whose broker is a scripted peer. */
async function onPeer(parts: AppParts, options: MqttModuleOptions = {}, filters = 0) {
  const peer = new ScriptedPeer()
  const starting = startMicroservice(
    {
      createStream: peer.createStream,
      protocolVersion: 5,
      drainTimeoutMs: 10,
      keepalive: 0,
      reconnect: { delayMs: [1] },
      ...options,
    },
    parts,
  )
  const connection = await peer.accept()
  for (let filter = 0; filter < filters; filter += 1) await connection.grant()
  const started = await starting
  closing.push(() => started.app.close())
  return { peer, connection, ...started }
}

/** An application that finds no broker. */
const offline = (parts: AppParts) =>
  startMicroservice({ url: 'mqtt://127.0.0.1:1', connect: 'background' }, parts)

const handled = (mqtt: MqttService, count: number) => eventually(() => mqtt.stats().inbound.handled === count)

describe('@OnMqttConnect, @OnMqttDisconnect and @OnMqttSessionLost', () => {
  it('call methods of controllers and providers with the session, or the cause', async () => {
    @Injectable()
    class Watch {
      @OnMqttConnect()
      onConnect(session: ConnectedSession): void {
        calls.push(['connect', session.sessionPresent, this instanceof Watch])
      }

      @OnMqttDisconnect()
      onDisconnect(cause: MqttError | undefined): void {
        calls.push(['disconnect', cause?.code])
      }
    }
    @Controller()
    class Loss {
      @OnMqttSessionLost()
      onSessionLost(session: ConnectedSession): void {
        calls.push(['session lost', session.sessionPresent])
      }
    }
    const parts = { controllers: [Loss], providers: [Watch] }
    const { peer, connection, app } = await onPeer(parts, { clean: false, clientId: 'kept' })
    expect(calls).toEqual([['connect', false, true]])
    await connection.cut()
    await peer.accept({ sessionPresent: true })
    await eventually(() => calls.length === 3)
    const third = calls.splice(0)
    expect(third.slice(1)).toEqual([
      ['disconnect', 'CONNECTION_LOST'],
      ['connect', true, true],
    ])
    await app.get(MqttService).whenConnected()
    app.get(MqttService).session.connection.terminate(new MqttError('CONNECTION_LOST', 'cut'))
    await peer.accept()
    await eventually(() => calls.length === 3)
    expect(calls).toContainEqual(['session lost', false])
    calls.length = 0
    await app.close()
    expect(calls).toEqual([['disconnect', undefined]])
  })

  it('are called when all modules are initialized', async () => {
    @Injectable()
    class Late implements OnModuleInit {
      private isReady = false

      onModuleInit(): void {
        this.isReady = true
      }

      @OnMqttConnect()
      onConnect(): void {
        calls.push(this.isReady)
      }
    }
    await onPeer({ providers: [Late] })
    expect(calls).toEqual([true])
  })

  it('may throw or reject: the error is logged, and the others are called', async () => {
    @Injectable()
    class Failing {
      @OnMqttConnect()
      first(): void {
        throw new Error('thrown')
      }

      @OnMqttConnect()
      second(): Promise<void> {
        return Promise.reject(new Error('rejected'))
      }

      @OnMqttConnect()
      third(): void {
        calls.push('third')
      }
    }
    const { mqtt, logger } = await onPeer({ providers: [Failing] })
    expect(calls).toEqual(['third'])
    expect(mqtt.state.status).toBe('connected')
    await eventually(() => logger.ofMqtt.filter(line => line.startsWith('error')).length === 2)
    expect(logger.ofMqtt).toContain('error [MqttModule] Failing.first with @OnMqttConnect failed: thrown')
    expect(logger.ofMqtt).toContain('error [MqttModule] Failing.second with @OnMqttConnect failed: rejected')
  })

  it('do not block the connection', async () => {
    @Injectable()
    class Waiting {
      @OnMqttConnect()
      onConnect(): Promise<void> {
        return new Promise(() => {})
      }

      @OnMqttEvent('a')
      onEvent(): void {
        calls.push('event')
      }
    }
    const { connection, mqtt } = await onPeer({ providers: [Waiting] }, {}, 1)
    connection.send(message('a', { payload: '1' }))
    await handled(mqtt, 1)
    expect(calls).toEqual(['event'])
  })

  it('belong to one connection', async () => {
    const [one, other] = [await EmbeddedBroker.start(), await EmbeddedBroker.start()]
    @Injectable()
    class Both {
      @OnMqttConnect()
      onDefault(session: ConnectedSession): void {
        calls.push(['default', session.broker])
      }

      @OnMqttConnect({ connection: 'edge' })
      onEdge(session: ConnectedSession): void {
        calls.push(['edge', session.broker])
      }
    }
    @Module({
      imports: [MqttModule.forRoot({ url: one.url }), MqttModule.forRoot({ url: other.url, name: 'edge' })],
      providers: [Both],
    })
    class AppModule {}
    const app = await NestFactory.createApplicationContext(AppModule, { logger: new CollectingLogger() })
    closing.push(
      () => app.close(),
      () => one.stop(),
      () => other.stop(),
    )
    expect(new Map(calls as [string, string][])).toEqual(
      new Map([
        ['default', one.url],
        ['edge', other.url],
      ]),
    )
  })

  it('fail the start on a request-scoped class', async () => {
    @Injectable({ scope: Scope.REQUEST })
    class Scoped {
      @OnMqttConnect()
      onConnect(): void {}
    }
    await expect(offline({ providers: [Scoped] })).rejects.toThrow(
      'Scoped.onConnect: @OnMqttConnect is called outside of any request, so its class cannot be request-scoped or transient',
    )
  })
})

describe('@OnMqttUnmatched', () => {
  let connection: PeerConnection
  let mqtt: MqttService

  const start = async (parts: AppParts, filters: number): Promise<void> => {
    const started = await onPeer(parts, {}, filters)
    connection = started.connection
    mqtt = started.mqtt
  }

  @Injectable()
  class Fallback {
    @OnMqttEvent('known/+id')
    onKnown(): void {
      calls.push('known')
    }

    @OnMqttUnmatched({ codec: 'text' })
    async onUnmatched(@Payload() text: string, @MqttTopic() topic: string): Promise<void> {
      calls.push(acks(connection))
      calls.push([topic, text])
      if (text === 'bad') throw new Error('not wanted')
    }
  }

  it('receives the messages that no handler matches, and only those', async () => {
    await start({ providers: [Fallback] }, 1)
    connection.send(message('known/1', { payload: '1' }))
    connection.send(message('unknown/1', { payload: 'x' }))
    await handled(mqtt, 2)
    expect(calls).toEqual(['known', [], ['unknown/1', 'x']])
    expect(mqtt.stats().inbound).toMatchObject({ received: 2, handled: 2, unmatched: 0 })
  })

  it('subscribes to nothing', async () => {
    await start({ providers: [Fallback] }, 1)
    const filters = connection.received.flatMap(packet =>
      packet.cmd === 'subscribe' ? packet.subscriptions : [],
    )
    expect(filters.map(({ topic }) => topic)).toEqual(['known/+'])
  })

  it('has its QoS 1 messages acknowledged after it has finished, also if it failed', async () => {
    await start({ providers: [Fallback] }, 1)
    connection.send({ ...qos1('unknown/1', 7), payload: 'bad' })
    expect(await connection.expect('puback')).toMatchObject({ messageId: 7 })
    expect(calls[0]).toEqual([])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 1 })
  })

  it('receives messages of a subscription that is removed at run time', async () => {
    await start({ providers: [Fallback] }, 1)
    const subscription = mqtt.subscribe('later', () => calls.push('later'))
    await connection.grant()
    connection.send(message('later', { payload: '1' }))
    await handled(mqtt, 1)
    void subscription.unsubscribe().catch(() => {})
    connection.send(message('later', { payload: '2' }))
    await handled(mqtt, 2)
    expect(calls).toEqual(['later', [], ['later', '2']])
  })

  it('fails the start if there are two', async () => {
    @Injectable()
    class Second {
      @OnMqttUnmatched()
      on(): void {}
    }
    await expect(offline({ providers: [Fallback, Second] })).rejects.toThrow(
      'Fallback.onUnmatched and Second.on: a connection can have one handler with @OnMqttUnmatched; remove the others',
    )
  })
})

describe('a handler with batch', () => {
  @Injectable()
  class Meters {
    @OnMqttEvent('meters/+meter', { batch: { maxMessages: 2 } })
    onReadings(@Payload() readings: number[], @MqttBatch() messages: readonly MqttMessage[]): void {
      calls.push([readings, messages.map(({ params }) => params['meter'])])
    }
  }

  it('receives the payloads and the messages', async () => {
    const { connection, mqtt } = await onPeer({ providers: [Meters] }, {}, 1)
    connection.send(qos1('meters/a', 1))
    connection.send(qos1('meters/b', 2))
    await handled(mqtt, 2)
    expect(calls).toEqual([
      [
        [1, 2],
        ['a', 'b'],
      ],
    ])
    await eventually(() => acks(connection).length === 2)
  })

  it('fails the start if it asks for the topic parameter of one message', async () => {
    @Injectable()
    class Wrong {
      @OnMqttEvent('meters/+meter', { batch: { maxMessages: 2 } })
      on(@TopicParam('meter') _meter: string): void {}
    }
    await expect(offline({ providers: [Wrong] })).rejects.toThrow(
      "Wrong.on: @TopicParam('meter') has no single value for a batch, because each of its messages has its own; use @MqttBatch() messages: readonly MqttMessage[]",
    )
  })

  it('fails the start if @MqttBatch is used without it', async () => {
    @Injectable()
    class Wrong {
      @OnMqttEvent('meters/+meter')
      on(@MqttBatch() _messages: readonly MqttMessage[]): void {}
    }
    await expect(offline({ providers: [Wrong] })).rejects.toThrow(
      'Wrong.on: @MqttBatch() needs the option batch in the decorator of the method, as in { batch: { maxMessages: 100 } }',
    )
  })
})

describe('@OnMqttUnmatched beside subscriptions at run time', () => {
  @Injectable()
  class Fallback {
    @OnMqttUnmatched({ codec: 'text' })
    onUnmatched(@MqttTopic() topic: string): void {
      calls.push(['unmatched', topic])
    }
  }

  it('receives what none of several overlapping filters matches, and $SYS topics that only "#" would', async () => {
    const { connection, mqtt } = await onPeer({ providers: [Fallback] })
    const filters = ['#', 'a/#', 'a/+']
    const subscriptions = filters.map(filter =>
      mqtt.subscribe(filter, ({ topic }) => void calls.push([filter, topic]), { codec: 'text' }),
    )
    for (const topic of ['a/1', 'b', '$SYS/broker/version']) connection.send(message(topic, { payload: 'x' }))
    await handled(mqtt, 3)
    expect(calls).toEqual([
      ...filters.map(filter => [filter, 'a/1']),
      ['#', 'b'],
      ['unmatched', '$SYS/broker/version'],
    ])
    calls.length = 0
    void subscriptions[0]?.unsubscribe()
    connection.send(message('b', { payload: 'x' }))
    connection.send(message('a/1', { payload: 'x' }))
    await handled(mqtt, 5)
    expect(calls).toEqual([
      ['unmatched', 'b'],
      ['a/#', 'a/1'],
      ['a/+', 'a/1'],
    ])
    expect(mqtt.stats().inbound).toMatchObject({ received: 5, handled: 5, unmatched: 0 })
  })
})
