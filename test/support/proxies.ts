import { once } from 'node:events'
import { type Server, connect as tcpConnect, createServer as tcpServer } from 'node:net'
import { type Duplex, pipeline } from 'node:stream'
import { createServer as tlsServer } from 'node:tls'
import { createServer, type Socks5Server } from '@pondwader/socks5-server'
import { Server as HttpProxy, RequestError } from 'proxy-chain'
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
  const server = new HttpProxy({
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

/** A SOCKS 4 and 4a server on the loopback address. `needsUser` requires the user `proxy`; there are no passwords. */
export async function socks4Proxy({
  needsUser = false,
  refuses = false,
}: ProxyOptions = {}): Promise<RunningProxy> {
  const requests: ProxyRequest[] = []
  const sockets = new Set<Duplex>()
  const server = tcpServer(socket => {
    sockets.add(socket.on('error', () => {}))
    socket.once('data', (bytes: Buffer) => {
      // Version, command, port, address, user, and in version 4a the name of the host.
      const [user = '', name = ''] = bytes.toString('latin1', 8).split('\0')
      const isName = bytes.readUInt32BE(4) < 0x100
      const host = isName ? name : bytes.subarray(4, 8).join('.')
      const port = bytes.readUInt16BE(2)
      requests.push({ target: `${host}:${port}`, from: socket.remoteAddress })
      const isGranted = bytes[0] === 4 && bytes[1] === 1 && !refuses && (!needsUser || user === 'proxy')
      socket.write(Buffer.from([0, isGranted ? 0x5a : 0x5b, 0, 0, 0, 0, 0, 0]))
      if (!isGranted) return void socket.end()
      const broker = tcpConnect(port, host)
      sockets.add(broker)
      pipeline(socket, broker, socket, () => {})
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    host: `127.0.0.1:${portOf(server)}`,
    requests,
    stop: () =>
      new Promise(resolve => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}

/** An HTTP proxy behind TLS. */
export async function httpsProxy(
  certificate: { readonly cert: Buffer; readonly key: Buffer },
  options: ProxyOptions = {},
): Promise<RunningProxy> {
  const inner = await httpProxy(options)
  const [host = '', port = ''] = inner.host.split(':')
  const server = tlsServer(certificate, socket => {
    pipeline(socket, tcpConnect(Number(port), host), socket, () => {})
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    host: `localhost:${portOf(server)}`,
    requests: inner.requests,
    stop: async () => {
      server.close()
      await inner.stop()
    },
  }
}

function portOf(server: Server): number {
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('the server has no port')
  return address.port
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
  return { host: `127.0.0.1:${portOf(server)}`, open: () => open, stop: () => server.close() }
}
