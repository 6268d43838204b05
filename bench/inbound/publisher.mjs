// Ready-made packets on a socket, at most one window ahead of the handlers: nothing is dropped, and the receiver is always
// busy.
import { once } from 'node:events'
import { connect } from 'node:net'
import mqttPacket from 'mqtt-packet'
import { config, respondToRequests, say } from '../requests.mjs'
import { PAYLOAD, topicsOf } from './handlers.mjs'
import { BATCH, WINDOW } from './plan.mjs'

const broker = connect(config.port, '127.0.0.1')
broker.setNoDelay(true)
await once(broker, 'connect')
broker.write(mqttPacket.generate({ cmd: 'connect', clientId: 'bench-publisher', clean: true, keepalive: 0 }))
await once(broker, 'data')
// Ignores the responses of the broker; the progress of the receiver is sufficient.
broker.resume()

/** The maximum number of batches in flight, so that a Packet Identifier is free when it is used again. */
function batchesOf(topics, qos) {
  return Array.from({ length: WINDOW / BATCH }, (_, batch) =>
    Buffer.concat(
      Array.from({ length: BATCH }, (_, index) =>
        mqttPacket.generate({
          cmd: 'publish',
          topic: topics[index % topics.length],
          payload: PAYLOAD,
          qos,
          ...(qos === 0 ? {} : { messageId: batch * BATCH + index + 1 }),
        }),
      ),
    ),
  )
}

async function round({ receiver, subject, count, qos, messages }) {
  const batches = batchesOf(topicsOf(subject, count), qos)
  const progress = connect(receiver, '127.0.0.1')
  await once(progress, 'data')
  let sent = 0
  let handled = 0
  const send = () => {
    while (sent < messages && sent + BATCH <= handled + WINDOW) {
      broker.write(batches[(sent / BATCH) % batches.length])
      sent += BATCH
    }
  }
  await new Promise(resolve => {
    progress.on('data', ({ length }) => {
      handled += length * BATCH
      if (handled === messages) resolve()
      else send()
    })
    send()
  })
  progress.destroy()
  return { sent }
}

say({ ready: true })
respondToRequests(round)
