import { once } from 'node:events'
import { createServer as tcpServer } from 'node:net'
import type { Duplex } from 'node:stream'
import { createServer, type Socks5Server } from '@pondwader/socks5-server'
import { RequestError, Server } from 'proxy-chain'
import { freePort } from './free-port.js'

export const PROXY_PASSWORD = 'proxy-hunter2'

/** What a proxy was asked for. */
interface ProxyRequest {
  readonly target: string
  readonly from: string | undefined
}

export interface RunningProxy {
  readonly host: string
  readonly requests: ProxyRequest[]
  stop(): Promise<void>
}

export interface ProxyOptions {
  /** Requires the user `proxy` with the password `PROXY_PASSWORD`. */
  readonly needsUser?: boolean
  /** Refuses to connect to any broker. */
  readonly refuses?: boolean
}

/** A real HTTP proxy on the loopback address. */
export async function httpProxy({
  needsUser = false,
  refuses = false,
}: ProxyOptions = {}): Promise<RunningProxy> {
  const requests: ProxyRequest[] = []
  const server = new Server({
    host: '127.0.0.1',
    port: 0,
    prepareRequestFunction: ({ hostname, port, username, password, request }) => {
      requests.push({ target: `${hostname}:${port}`, from: request.socket.remoteAddress })
      const isKnown = username === 'proxy' && password === PROXY_PASSWORD
      if (refuses) throw new RequestError('not allowed', 403)
      return { requestAuthentication: needsUser && !isKnown }
    },
  })
  await server.listen()
  return {
    host: `127.0.0.1:${server.port}`,
    requests,
    stop: async () => {
      server.closeConnections()
      await server.close(true)
    },
  }
}

/** A real SOCKS 5 server on the loopback address. */
export async function socksProxy({
  needsUser = false,
  refuses = false,
}: ProxyOptions = {}): Promise<RunningProxy> {
  const requests: ProxyRequest[] = []
  const server: Socks5Server = createServer(
    needsUser ? { auth: { username: 'proxy', password: PROXY_PASSWORD } } : {},
  )
  const sockets = new Set<Duplex>()
  server.setRulesetValidator(({ destAddress, destPort, socket }) => {
    sockets.add(socket)
    const from = 'remoteAddress' in socket ? String(socket.remoteAddress) : undefined
    requests.push({ target: `${destAddress}:${destPort}`, from })
    return !refuses
  })
  const port = await freePort()
  await new Promise<void>(resolve => server.listen(port, '127.0.0.1', resolve))
  return {
    host: `127.0.0.1:${port}`,
    requests,
    // It does not read a socket any more whose broker has hung up, and would wait for its end.
    stop: () =>
      new Promise(resolve => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}

/** A server that accepts connections and never responds. */
export async function silentServer(): Promise<{
  readonly host: string
  readonly open: () => number
  stop(): void
}> {
  let open = 0
  const server = tcpServer(socket => {
    open += 1
    socket.on('error', () => {})
    socket.on('close', () => {
      open -= 1
    })
    socket.resume()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('the server has no port')
  return { host: `127.0.0.1:${address.port}`, open: () => open, stop: () => server.close() }
}
