import { type Duplex, duplexPair } from 'node:stream'

/** The two ends of a byte stream inside the process. When one end is destroyed, the other closes too. */
export function streamPair(): readonly [Duplex, Duplex] {
  const [client, server] = duplexPair({ allowHalfOpen: false })
  client.once('close', () => server.destroy())
  server.once('close', () => client.destroy())
  return [client, server]
}
