import { randomBytes } from 'node:crypto'
import type { IConnackPacket, IConnectPacket } from 'mqtt-packet'
import { describeReasonCode } from '../../core/protocol/packets.js'
import { Interrupted, RawConnection, type RunLimit, type Traffic } from './raw-connection.js'
import { type AuthenticationData, NoConnection, type Target } from './target.js'

/** Longest wait for one response of the broker, in milliseconds. */
export const RESPONSE_MS = 3_000
/** Time that is kept for the removal of what the run has left on the broker, in milliseconds. */
const CLEANUP_MS = 2_000
/** Keep Alive of the connections. Brokers that limit it choose a lower value. */
export const KEEP_ALIVE_SECONDS = 300

export type OpenOptions = Partial<Omit<IConnectPacket, 'cmd' | 'protocolId' | 'username' | 'password'>>

export interface Opened {
  readonly raw: RawConnection
  readonly connack: IConnackPacket
}

/** What the checks of one run share: the target, names, limits, and what must be removed at the end. */
export class Examination {
  readonly traffic: Traffic = { packetsOut: 0, bytesOut: 0, packetsIn: 0, bytesIn: 0 }
  readonly prefix: string
  /** MQTT version of the checks. */
  protocolVersion: 4 | 5 = 5
  /** Time in which a message must arrive that the broker sends at all. */
  quietMs = 250
  private readonly run = randomBytes(6).toString('hex')
  private readonly retained = new Set<string>()
  private readonly sessions = new Set<string>()
  private readonly opened = new Set<RawConnection>()
  private readonly endMs: number
  private names = 0

  constructor(
    readonly target: Target,
    prefix: string,
    timeoutMs: number,
    /** The run was interrupted. */
    readonly signal?: AbortSignal,
  ) {
    this.prefix = `${prefix}/${this.run}`
    this.endMs = performance.now() + timeoutMs
    signal?.addEventListener('abort', () => {
      for (const raw of this.opened) raw.interrupt()
    })
  }

  /** Time that is left for checks, in milliseconds. */
  get leftMs(): number {
    return this.signal?.aborted ? 0 : this.endMs - CLEANUP_MS - performance.now()
  }

  /** A topic that no other run uses. */
  topic(name: string): string {
    return `${this.prefix}/${name}`
  }

  /** A topic on which a retained message is published. It is removed at the end. */
  retainedTopic(name: string): string {
    const topic = this.topic(name)
    this.retained.add(topic)
    return topic
  }

  /** A Client Identifier. At most 23 letters and digits, which every broker must accept (MQTT 5, 3.1.3.1). */
  clientId(): string {
    this.names += 1
    return `doctor${this.run}n${this.names}`
  }

  /** The Client Identifier of a session that outlives its connection. It is removed at the end. */
  sessionId(): string {
    const clientId = this.clientId()
    this.sessions.add(clientId)
    return clientId
  }

  /** Opens a stream and sends CONNECT. @throws NoConnection, Interrupted */
  async attempt(options: OpenOptions, limit = this.limit): Promise<Opened> {
    const waitMs = Math.max(1, Math.min(RESPONSE_MS, limit.leftMs()))
    const stream = await this.target.open(waitMs, limit.signal)
    const raw = new RawConnection(stream, limit)
    this.opened.add(raw)
    const { username, password, authentication } = this.target
    const connack = await raw.connect(
      {
        clientId: this.clientId(),
        clean: true,
        keepalive: KEEP_ALIVE_SECONDS,
        protocolVersion: this.protocolVersion,
        ...(username === undefined ? {} : { username }),
        ...(password === undefined ? {} : { password }),
        ...options,
        ...(authentication === undefined ? {} : { properties: withData(authentication, options) }),
      },
      waitMs,
    )
    return { raw, connack }
  }

  /** The same for a check, where every CONNACK but success is a failure. */
  async open(options: OpenOptions = {}, limit = this.limit): Promise<Opened> {
    const opened = await this.attempt(options, limit)
    const code = codeOf(opened.connack)
    if (code !== 0) throw new Interrupted(`the broker refused a connection: ${describeReasonCode(code)}`)
    return opened
  }

  /** Connects, runs a check, and disconnects. */
  async using<T>(options: OpenOptions, check: (raw: RawConnection) => Promise<T>): Promise<T> {
    const { raw } = await this.open(options)
    try {
      return await check(raw)
    } finally {
      raw.close()
      this.opened.delete(raw)
    }
  }

  /** Removes retained messages and sessions. @returns what could not be removed */
  async cleanUp(): Promise<readonly string[]> {
    for (const raw of this.opened) raw.close()
    const end = performance.now() + CLEANUP_MS
    const limit: RunLimit = { traffic: this.traffic, leftMs: () => end - performance.now() }
    const left: string[] = []
    const removals = [
      ...[...this.sessions].map(clientId => this.removeSession(clientId, limit)),
      this.removeRetained(limit),
    ]
    for (const [index, result] of (await Promise.allSettled(removals)).entries())
      if (result.status === 'rejected')
        left.push([...this.sessions][index] ?? `retained messages below ${this.prefix}`)
    return left
  }

  private async removeSession(clientId: string, limit: RunLimit): Promise<void> {
    const { raw } = await this.open({ clientId, clean: true }, limit)
    raw.close()
  }

  private async removeRetained(limit: RunLimit): Promise<void> {
    if (this.retained.size === 0) return
    const { raw } = await this.open({}, limit)
    for (const topic of this.retained) {
      const { failure } = await raw.publish({ topic, payload: '', qos: 1, retain: true }, RESPONSE_MS)
      if (failure !== undefined) throw new Interrupted(failure)
    }
    raw.close()
  }

  private get limit(): RunLimit {
    return { traffic: this.traffic, leftMs: () => this.leftMs, signal: this.signal }
  }
}

function withData({ method, data }: AuthenticationData, { properties }: OpenOptions) {
  const authenticationData = data === undefined ? {} : { authenticationData: Buffer.from(data) }
  return { ...properties, authenticationMethod: method, ...authenticationData }
}

export const codeOf = ({ reasonCode, returnCode }: IConnackPacket): number => reasonCode ?? returnCode ?? 0

/** CONNACK codes that say that the version is not supported. */
const UNSUPPORTED_VERSION = [0x01, 0x84]
const CREDENTIALS = [0x04, 0x05, 0x86, 0x87, 0x8c]

/** @throws NoConnection unless the broker refused only the protocol version */
export function assertNotRefused(code: number, target: Target): void {
  if (code === 0 || UNSUPPORTED_VERSION.includes(code)) return
  const text = `${target.name}: the broker refused the connection: ${describeReasonCode(code)}`
  if (!CREDENTIALS.includes(code)) throw new NoConnection('protocol', text)
  const given =
    target.username === undefined
      ? 'no user name was given; set MQTT_USERNAME and MQTT_PASSWORD'
      : `check MQTT_USERNAME and MQTT_PASSWORD, and what "${target.username}" may do`
  throw new NoConnection('credentials', `${text}; ${given}`)
}
