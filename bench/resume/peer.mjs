// A broker that acknowledges nothing on its first connection, and everything on the next ones, which resume the session
// with a small Receive Maximum.
import { createServer } from 'node:net'
import mqttPacket from 'mqtt-packet'
import { config, respondToRequests, say } from '../requests.mjs'

const options = { protocolVersion: 5 }
let connections = 0
let published = 0
let mostOpen = 0
let current

const server = createServer(socket => {
  current = socket
  socket.setNoDelay(true)
  socket.on('error', () => {})
  connections += 1
  const isFirst = connections === 1
  const receiveMaximum = isFirst ? 65_535 : config.receiveMaximum
  const parser = mqttPacket.parser(options)
  let responses = []
  parser.on('packet', packet => {
    if (packet.cmd === 'connect')
      responses.push({
        cmd: 'connack',
        reasonCode: 0,
        sessionPresent: !isFirst,
        properties: { receiveMaximum },
      })
    else if (packet.cmd === 'pingreq') responses.push({ cmd: 'pingresp' })
    else if (packet.cmd === 'publish') {
      published += 1
      if (!isFirst) responses.push({ cmd: 'puback', messageId: packet.messageId })
    }
  })
  socket.on('data', bytes => {
    parser.parse(bytes)
    mostOpen = Math.max(mostOpen, isFirst ? 0 : responses.filter(({ cmd }) => cmd === 'puback').length)
    if (responses.length > 0)
      socket.write(Buffer.concat(responses.map(response => mqttPacket.generate(response, options))))
    responses = []
  })
})
server.listen(0, '127.0.0.1', () => say({ url: `mqtt://127.0.0.1:${server.address().port}` }))

respondToRequests(({ cut }) => {
  if (cut) current.destroy()
  return { published, mostOpen }
})
