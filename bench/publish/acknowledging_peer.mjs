// A broker that only acknowledges, with one write per read, so that the client is the limit.
import { createServer } from 'node:net'
import { respondToRequests, say } from '../requests.mjs'

const CONNACK = { 4: Buffer.from([0x20, 2, 0, 0]), 5: Buffer.from([0x20, 3, 0, 0, 0]) }
const PINGRESP = Buffer.from([0xd0, 0])

/** Length of the packet at `at`, or undefined if its header is incomplete. */
function lengthAt(bytes, at) {
  let length = 0
  for (let index = 1; index < 5; index += 1) {
    const byte = bytes[at + index]
    if (byte === undefined) return undefined
    length += (byte & 0x7f) << (7 * (index - 1))
    if (byte < 0x80) return length + index + 1
  }
  return undefined
}

function response(bytes, at) {
  const kind = bytes[at] >> 4
  if (kind === 1) return CONNACK[bytes[at + 8]]
  if (kind === 12) return PINGRESP
  if (kind !== 3 || (bytes[at] & 6) === 0) return undefined
  const topicAt = at + (lengthAt(bytes, at) > 129 ? 3 : 2)
  const identifierAt = topicAt + 2 + bytes.readUInt16BE(topicAt)
  return Buffer.from([0x40, 2, bytes[identifierAt], bytes[identifierAt + 1]])
}

const server = createServer(socket => {
  socket.setNoDelay(true)
  let rest = Buffer.alloc(0)
  socket.on('error', () => {})
  socket.on('data', chunk => {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    const responses = []
    let at = 0
    for (let length = lengthAt(bytes, at); length !== undefined && at + length <= bytes.length; ) {
      const one = response(bytes, at)
      if (one !== undefined) responses.push(one)
      at += length
      length = lengthAt(bytes, at)
    }
    rest = bytes.subarray(at)
    if (responses.length > 0) socket.write(responses.length === 1 ? responses[0] : Buffer.concat(responses))
  })
})
server.listen(0, '127.0.0.1', () => say({ port: server.address().port }))
respondToRequests(() => ({}))
