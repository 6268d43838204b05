// A Nest application that handles the messages of the publishers in a shared group, and responds to requests.
import 'reflect-metadata'
import { setTimeout as wait } from 'node:timers/promises'
import { Controller, Inject, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { Ctx, EventPattern, MessagePattern, Payload, RpcException } from '@nestjs/microservices'
import { deadLetter, handle, MqttModule, MqttService } from 'nestjs-mqtt'
import { Actor } from './actor.mjs'
import { HANDLER_OPERATIONS } from './operations.mjs'
import { begin } from './remote.mjs'
import { OWN_TOPICS, SHARED_TOPICS } from './topics.mjs'

/** A message that is handled again is no first one. Bounded, because a run may be long. */
const MOST_REMEMBERED = 20_000
const ASK_MS = 2_000
/** The longest wait for a slow handler. */
const BUSY_MS = 4_000

class Service extends Actor {
  begun = new Set()
  runs = 0
  /** Slow handlers that run, of messages that are acknowledged after them. */
  slowRuns = 0

  options() {
    return { inbound: { concurrency: 8, maxInFlight: 50, maxQueued: 500 }, outbound: { ackTimeoutMs: 8_000 } }
  }

  async newClient() {
    const { log } = this
    this.app = await NestFactory.createMicroservice(appModule(this), {
      ...MqttModule.microservice(),
      logger: log,
      abortOnError: false,
    })
    MqttModule.enableDrain(this.app, [])
    return this.app.get(MqttService)
  }

  startClient() {
    return this.app.listen()
  }

  stopClient() {
    return this.app.close()
  }

  async handle(mqtt, { id, kind }, topic) {
    const { random } = this
    if (!this.begun.has(id)) {
      this.journal.note('B', id, topic)
      this.begun.add(id)
      if (this.begun.size > MOST_REMEMBERED) this.begun.delete(this.begun.values().next().value)
    }
    if (kind in HANDLER_OPERATIONS) this.did(HANDLER_OPERATIONS[kind])
    if (kind === 'poison') throw new Error('this message is poisoned')
    if (kind === 'flaky' && random.chance(0.5)) throw new Error('this attempt fails')
    if (kind === 'slow') await this.handleSlowly(topic)
    if (kind === 'asks') await this.askInside(mqtt)
    this.journal.note('H', id)
    this.advance(`handled ${topic.split('/')[3]}`)
  }

  async handleSlowly(topic) {
    const isAcknowledged = topic.split('/')[3] !== '0'
    if (isAcknowledged) this.slowRuns += 1
    await wait(this.random.between(100, 1_000))
    if (isAcknowledged) this.slowRuns -= 1
  }

  /** Resolves when a slow handler runs. @returns false if none does */
  async busy() {
    const untilMs = performance.now() + BUSY_MS
    while (this.slowRuns === 0 && performance.now() < untilMs) await wait(1)
    return this.slowRuns > 0
  }

  /** A request inside a handler, on the same connection. */
  async askInside(mqtt) {
    await this.ask('inside-handler', ASK_MS, id => mqtt.request('soak/ask', { id }, { timeoutMs: ASK_MS }))
    this.advance('asked inside a handler')
  }

  /** Each run has a name, so that a response shows where it comes from. */
  begin(id) {
    const by = `${this.role.name}:${this.role.life}:${this.runs++}`
    this.journal.note('S', id, by)
    return { id, by }
  }

  async respond({ id }) {
    const response = this.begin(id)
    if (this.random.chance(0.1)) await wait(this.random.between(10, 300))
    this.advance('responded')
    if (this.random.chance(0.03)) throw new RpcException(`refused: ${id} `)
    return response
  }

  async *count({ id, to }) {
    const response = this.begin(id)
    for (let number = 1; number <= to; number += 1) {
      yield { ...response, number }
      if (this.random.chance(0.3)) await wait(this.random.between(1, 50))
    }
    this.advance('streamed')
  }
}

/** The application, without decorator syntax. */
function appModule(service) {
  const { name, publisher, sharedGroup } = service.role
  const events = {
    qos: 1,
    retries: { attempts: 2, delayMs: [20, 100] },
    onFailure: deadLetter(`soak/dead/${name}`),
  }

  class ServiceController {
    constructor(mqtt) {
      this.mqtt = mqtt
    }
    onShared(payload, context) {
      return service.handle(this.mqtt, payload, context.getTopic())
    }
    onOwn(payload, context) {
      return service.handle(this.mqtt, payload, context.getTopic())
    }
    onFlood() {
      service.advance('flood')
    }
    onAsk(payload) {
      return service.respond(payload)
    }
    onCount(payload) {
      return service.count(payload)
    }
  }
  const shared = SHARED_TOPICS.map(topic => `soak/pub/+/+/+/${topic}`)
  const own = OWN_TOPICS.map(topic => `soak/pub/+/+/${publisher}/${topic}`)
  decorate(ServiceController, 'onShared', EventPattern(shared, handle({ ...events, sharedGroup })))
  decorate(ServiceController, 'onOwn', EventPattern(own, handle(events)))
  decorate(
    ServiceController,
    'onFlood',
    EventPattern(`soak/flood/${name}`, handle({ qos: 0, codec: 'bytes' })),
  )
  decorate(ServiceController, 'onAsk', MessagePattern('soak/ask', handle({ sharedGroup })))
  // The values of a stream have the QoS at which its request was delivered.
  decorate(ServiceController, 'onCount', MessagePattern('soak/count', handle({ sharedGroup, qos: 1 })))
  Inject(MqttService)(ServiceController, undefined, 0)
  Controller()(ServiceController)

  class ServiceModule {}
  Module({ imports: [MqttModule.forRoot(service.connection())], controllers: [ServiceController] })(
    ServiceModule,
  )
  return ServiceModule
}

/** `(@Payload() payload, @Ctx() context)` and this decorator. */
function decorate({ prototype }, method, decorator) {
  Payload()(prototype, method, 0)
  Ctx()(prototype, method, 1)
  decorator(prototype, method, Object.getOwnPropertyDescriptor(prototype, method))
}

await begin(Service)
