import { type Duplex, duplexPair } from 'node:stream'

/** Returns the two ends of a byte stream inside the process. Destroying one end closes the other. */
export function streamPair(): readonly [Duplex, Duplex] {
  const [client, server] = duplexPair({ allowHalfOpen: false })
  client.once('close', () => server.destroy())
  server.once('close', () => client.destroy())
  return [client, server]
}
