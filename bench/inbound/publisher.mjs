// Ready-made packets on a socket, never more than a window ahead of what the handlers have done: nothing is dropped
// on the way, and the receiver always has more to do.
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
// The answers of the broker; the progress of the receiver says all that matters.
broker.resume()

/** As many batches as may be under way, so that a Packet Identifier is free when it is used again. */
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
