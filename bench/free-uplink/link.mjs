// A TCP link in front of the broker: without a limit towards the broker, and with a limited rate back, behind the buffer of
// a router. A given number of PINGRESPs is lost, every second one.
import { connect, createServer } from 'node:net'
import { config, respondToRequests, say } from '../requests.mjs'

const SLICE_MS = 10
const { port, downBytesPerSecond, bufferBytes, losing = 0 } = config
const PINGRESP = 13
let responses = 0
let lost = 0

/** The rest of packets that arrived together. No packet here is longer than 127 bytes. */
function lose(chunk) {
  const kept = []
  for (let at = 0; at < chunk.length; at += chunk[at + 1] + 2) {
    const isLost = chunk[at] >> 4 === PINGRESP && ++responses % 2 === 0 && lost < losing
    if (isLost) lost += 1
    else kept.push(chunk.subarray(at, at + chunk[at + 1] + 2))
  }
  return Buffer.concat(kept)
}

const server = createServer(client => {
  const broker = connect(port, '127.0.0.1')
  client.setNoDelay(true)
  broker.setNoDelay(true)
  client.pipe(broker)
  if (losing > 0) return void broker.on('data', chunk => client.write(lose(chunk)))
  if (downBytesPerSecond === null) return void broker.pipe(client)
  const queue = []
  let queued = 0
  let credit = 0
  broker.on('data', chunk => {
    queue.push(chunk)
    queued += chunk.length
    if (queued >= bufferBytes) broker.pause()
  })
  setInterval(() => {
    credit = Math.min(credit + (downBytesPerSecond * SLICE_MS) / 1_000, 1_500)
    while (queue.length > 0 && credit >= 1) {
      const chunk = queue[0]
      const part = chunk.subarray(0, Math.floor(credit))
      client.write(part)
      credit -= part.length
      queued -= part.length
      if (part.length === chunk.length) queue.shift()
      else queue[0] = chunk.subarray(part.length)
    }
    if (queued < bufferBytes) broker.resume()
  }, SLICE_MS)
}).listen(0, '127.0.0.1', () => say({ port: server.address().port }))
respondToRequests(() => ({ lost }))
