import { once } from 'node:events'
import { createServer } from 'node:net'
import { PeerConnection } from '../../src/testing/scripted-peer.js'
import { eventually } from './eventually.js'
import { freePort } from './free-port.js'

/** A broker on a port, of which the test sends every packet, for clients in processes of their own. */
export async function scriptedBroker() {
  const connections: PeerConnection[] = []
  const server = createServer(socket => connections.push(new PeerConnection(socket)))
  const port = await freePort()
  await once(server.listen(port, '127.0.0.1'), 'listening')
  const accept = async (index: number): Promise<PeerConnection> => {
    await eventually(() => connections.length > index)
    const connection = connections[index]
    if (connection === undefined) throw new Error('the client is not connected')
    await connection.expect('connect')
    connection.send({ cmd: 'connack', reasonCode: 0, sessionPresent: false })
    return connection
  }
  return { url: `mqtt://127.0.0.1:${port}`, accept, close: () => server.close() }
}
