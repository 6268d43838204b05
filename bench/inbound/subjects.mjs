// The compared subjects: three ways of a message from the broker to the same wrapped Nest handler. Each resolves when every
// subscription is granted.
import 'reflect-metadata'
import { NestFactory } from '@nestjs/core'
import { MqttContext, Server, Transport } from '@nestjs/microservices'
import { connectAsync } from 'mqtt'
import { MqttModule } from 'nestjs-mqtt'

const PER_SUBSCRIBE = 500

async function serve(root, options) {
  const app = await NestFactory.createMicroservice(root, { ...options, logger: false, abortOnError: false })
  await app.listen()
  return app
}

/** With the defaults of the relevant options: order by topic, acknowledgement after the handler. */
async function ours({ url, protocolVersion, controller }) {
  const imports = [MqttModule.forRoot({ url, protocolVersion })]
  await serve({ module: class Root {}, imports, controllers: [controller] }, MqttModule.microservice())
}

/**
 * It finds the handler by trying the patterns one after the other. It treats a message without its envelope as an event,
 * whatever the handler is, so the rows of `@MessagePattern` also send the plain payload: no response is requested.
 */
async function builtIn({ url, protocolVersion, controller, patterns }) {
  const options = { url, protocolVersion }
  const app = await serve(
    { module: class Root {}, controllers: [controller] },
    { transport: Transport.MQTT, options },
  )
  // It does not wait for its subscriptions, but later subscriptions are granted after them.
  await app.unwrap().subscribeAsync(patterns.at(-1), { qos: 1 })
}

/** Only collects the wrapped handlers. */
class Collector extends Server {
  callbacks = new Map()

  addHandler(pattern, callback) {
    this.callbacks.set(pattern, callback)
  }

  listen(callback) {
    callback()
  }

  close() {}

  on() {}

  unwrap() {}
}

/** Plain `mqtt`: the minimum cost of a message to a Nest handler with this package. */
async function floor({ url, protocolVersion, controller, patterns, topics }) {
  const strategy = new Collector()
  await serve({ module: class Root {}, controllers: [controller] }, { strategy })
  const callback = strategy.callbacks.get(patterns.at(-1))
  const handlers = new Map(topics.map(topic => [topic, callback]))
  const client = await connectAsync(url, { protocolVersion })
  client.on('message', async (topic, payload, packet) => {
    await handlers.get(topic)(JSON.parse(payload.toString()), new MqttContext([topic, packet]))
  })
  for (let at = 0; at < patterns.length; at += PER_SUBSCRIBE)
    await client.subscribeAsync(patterns.slice(at, at + PER_SUBSCRIBE), { qos: 1 })
}

export const SUBJECTS = { ours, before: ours, builtIn, floor }
