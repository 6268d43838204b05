// A process that publishes to one topic, at a rate or as fast as it can.
import { connectAsync } from 'mqtt'
import { config, respondToRequests, say } from '../requests.mjs'

const { port, topic = 'in', messagesPerSecond, payloadBytes } = config
const TICK_MS = 5
const client = await connectAsync(`mqtt://127.0.0.1:${port}`)
const payload = JSON.stringify('x'.repeat(payloadBytes - 2))
let sent = 0
let owed = 0
respondToRequests(({ start }) => {
  if (start)
    setInterval(() => {
      if (client.stream.writableLength > 1_000_000) return
      for (owed += (messagesPerSecond * TICK_MS) / 1_000; owed >= 1; owed -= 1, sent += 1)
        client.publish(topic, payload)
    }, TICK_MS)
  return { sent }
})
say({ ready: true })
