import type { IAuthPacket, IConnackPacket, Packet } from 'mqtt-packet'
import {
  AUTH_AGAIN,
  AUTH_CONTINUE,
  AuthenticationRounds,
  authenticationFailed,
  expiryProblem,
  unexpectedAuth,
} from '../../core/connection/authentication.js'
import { describeCause, type MqttError } from '../../core/errors.js'
import type {
  AuthenticationExchange,
  AuthenticationStart,
  ResolvedAuthentication,
} from '../../options/authentication.js'
import type { MqttCredentials } from '../../options/options.js'
import { credentialsProblem } from '../../options/pass-through.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'

/** The part of a link that an exchange needs. */
interface AuthenticatedLink {
  send(packet: Packet): void
  terminate(cause: MqttError): void
}

interface AuthenticationProperties {
  readonly authenticationMethod: string
  readonly authenticationData?: Buffer
}

const MAX_DATA_BYTES = 65_535

/** The credentials for an attempt to connect, or for a renewal. Rejects if they are invalid. */
export async function requestCredentials({
  credentials,
  authentication,
}: Pick<ResolvedOptions, 'credentials' | 'authentication'>): Promise<MqttCredentials> {
  if (credentials === undefined) return {}
  const given = (await credentials()) ?? {}
  const problem = credentialsProblem(given) ?? expiryProblem(given.expiresAtMs)
  if (problem !== undefined) throw new Error(problem)
  if (given.authenticationData === undefined || authentication !== undefined) return given
  throw new Error('credentials: "authenticationData" is set, but the option "authentication" is missing')
}

/** AUTH has arrived. `mqtt` must ignore the packet afterwards, because it would end the connection. */
export function authenticate(
  authentication: LinkAuthentication | undefined,
  packet: IAuthPacket,
  link: AuthenticatedLink,
): void {
  if (authentication === undefined) link.terminate(unexpectedAuth(false))
  else authentication.received(packet, link)
}

/** Private fields (`#`), because the data and the exchange hold secrets. */
class Exchange {
  readonly #exchange: AuthenticationExchange
  readonly #data: Buffer | undefined

  constructor(
    exchange: AuthenticationExchange,
    readonly rounds: AuthenticationRounds,
  ) {
    this.#data = dataOf(exchange.data, '"data" of the exchange')
    this.#exchange = exchange
  }

  get data(): Buffer | undefined {
    return this.#data
  }

  async respond(challenge: Buffer | undefined): Promise<Buffer | undefined> {
    const exchange = this.#exchange
    if (exchange.onChallenge === undefined)
      throw new Error('the broker sent a challenge, but the exchange has no onChallenge')
    return dataOf(await exchange.onChallenge(challenge), 'the result of onChallenge')
  }

  /** @throws the error of the application, which does not accept the data */
  succeed(data: Buffer | undefined): void {
    const result: unknown = this.#exchange.onSuccess?.(data)
    if (typeof result !== 'object' || result === null || !('then' in result)) return
    Promise.resolve(result).catch(() => {})
    throw new Error('it returned a promise; it must return only after it has checked the data')
  }
}

function dataOf(value: unknown, what: string): Buffer | undefined {
  if (value === undefined) return undefined
  const data = typeof value === 'string' ? Buffer.from(value) : value
  if (!Buffer.isBuffer(data)) throw new Error(`${what} must be a Buffer, a string or undefined`)
  if (data.length <= MAX_DATA_BYTES) return data
  throw new Error(`${what} has ${data.length} bytes; MQTT allows at most ${MAX_DATA_BYTES}`)
}

/** The enhanced authentication of one connection (MQTT 5, 4.12). */
export class LinkAuthentication {
  private current: Exchange | undefined
  /** Settles the promise of a re-authentication. */
  private settle: ((failure?: MqttError) => void) | undefined
  private timer: NodeJS.Timeout | undefined

  private constructor(
    private readonly options: ResolvedAuthentication,
    first: AuthenticationExchange,
  ) {
    this.current = new Exchange(first, new AuthenticationRounds(options, false))
  }

  /** Begins the exchange of an attempt to connect. Rejects if the application fails to. */
  static async start(
    options: ResolvedAuthentication,
    credentials: AuthenticationStart['credentials'],
  ): Promise<LinkAuthentication> {
    return new LinkAuthentication(options, await options.start({ credentials, isReauthentication: false }))
  }

  /** The properties of CONNECT. */
  get connectProperties(): AuthenticationProperties {
    return this.propertiesWith(this.current?.data)
  }

  received({ reasonCode, properties }: IAuthPacket, link: AuthenticatedLink): void {
    const { current } = this
    const step =
      current === undefined
        ? unexpectedAuth(true)
        : current.rounds.received(reasonCode, properties?.authenticationMethod)
    const data = properties?.authenticationData
    if (step === 'challenge') return void this.respond(data, link)
    const failure = step === 'success' ? this.succeed(data) : step
    if (failure === undefined) this.end()
    else this.fail(failure, link)
  }

  /**
   * Authenticates again on the established connection (MQTT 5, 4.12.1). Other packets continue in the meantime. If it rejects,
   * the connection has ended.
   */
  async again(exchange: AuthenticationExchange, link: AuthenticatedLink): Promise<void> {
    const current = new Exchange(exchange, new AuthenticationRounds(this.options, true))
    this.current = current
    this.timer = setTimeout(() => this.overdue(link), this.options.timeoutMs)
    link.send({ cmd: 'auth', reasonCode: AUTH_AGAIN, properties: this.propertiesWith(current.data) })
    await new Promise<void>((resolve, reject) => {
      this.settle = failure => (failure === undefined ? resolve() : reject(failure))
    })
  }

  /** CONNACK with success has arrived. @returns why the connection must end */
  accepted(properties: IConnackPacket['properties']): MqttError | undefined {
    const fault =
      this.current?.rounds.accepted(properties?.authenticationMethod) ??
      this.succeed(properties?.authenticationData)
    this.end()
    return fault
  }

  /** The exchange or the connection has ended. */
  end(failure?: MqttError): void {
    const { settle } = this
    this.current = undefined
    this.settle = undefined
    settle?.(failure)
    clearTimeout(this.timer)
    this.timer = undefined
  }

  private succeed(data: Buffer | undefined): MqttError | undefined {
    try {
      this.current?.succeed(data)
      return undefined
    } catch (cause) {
      return authenticationFailed(`onSuccess failed: ${describeCause(cause)}`, { cause })
    }
  }

  private async respond(challenge: Buffer | undefined, link: AuthenticatedLink): Promise<void> {
    const { current } = this
    this.timer ??= setTimeout(() => this.overdue(link), this.options.timeoutMs)
    try {
      const data = await current?.respond(challenge)
      // The connection may have ended in the meantime.
      if (this.current === undefined || this.current !== current) return
      current.rounds.responded()
      link.send({ cmd: 'auth', reasonCode: AUTH_CONTINUE, properties: this.propertiesWith(data) })
    } catch (cause) {
      if (this.current === current) this.fail(authenticationFailed(describeCause(cause), { cause }), link)
    }
  }

  private overdue(link: AuthenticatedLink): void {
    const awaited = this.current?.rounds.awaited ?? ''
    this.fail(authenticationFailed(`${awaited} within ${this.options.timeoutMs} ms`), link)
  }

  private fail(cause: MqttError, link: AuthenticatedLink): void {
    this.end(cause)
    link.terminate(cause)
  }

  private propertiesWith(data: Buffer | undefined): AuthenticationProperties {
    const { method } = this.options
    return data === undefined
      ? { authenticationMethod: method }
      : { authenticationMethod: method, authenticationData: data }
  }
}
