import { resolveSrv } from 'node:dns/promises'
import { withoutSecrets } from '../../option-checks.js'
import type { MqttCredentials, ResolvedOptions } from '../../options.js'

/** Where one attempt goes, and with what. */
export interface Endpoint {
  /** Undefined where the application opens the stream itself. */
  readonly url: string | undefined
  /** As a log or an error names it. */
  readonly name: string
  readonly credentials: MqttCredentials
}

/** One DNS SRV record (RFC 2782). */
export interface SrvRecord {
  readonly name: string
  readonly port: number
  readonly priority: number
  readonly weight: number
}

export type SrvResolver = (service: string) => Promise<readonly SrvRecord[]>

const SERVICES: Readonly<Record<string, readonly [service: string, protocol: string]>> = {
  'mqtt+srv:': ['_mqtt._tcp', 'mqtt'],
  'mqtts+srv:': ['_secure-mqtt._tcp', 'mqtts'],
}

/** Finds out where an attempt goes: looks up SRV records, asks for credentials. */
export class Endpoints {
  /** Which of the SRV records is dialled; the next one after each attempt that failed. */
  private turn = 0

  constructor(
    private readonly options: ResolvedOptions,
    private readonly resolve: SrvResolver = resolveSrv,
  ) {}

  async next(target: number, reference: string | undefined): Promise<Endpoint> {
    const credentials = (await this.options.credentials?.()) ?? {}
    if (this.options.createStream !== undefined) {
      return { url: undefined, name: 'the stream of createStream', credentials }
    }
    const home = this.options.urls[target] ?? ''
    const url = await this.locate(reference === undefined ? home : referenceUrl(home, reference))
    return { url, name: withoutSecrets(url), credentials }
  }

  /** The endpoint given last is good: it is tried first next time. */
  keep(): void {
    this.turn -= 1
  }

  private async locate(url: string): Promise<string> {
    const { protocol, hostname, username, password } = new URL(url)
    const service = SERVICES[protocol]
    if (service === undefined) return url
    const [name, plain] = service
    const records = inOrder(await this.resolve(`${name}.${hostname}`))
    const record = records[Math.max(0, this.turn++) % records.length]
    if (record === undefined) throw new Error(`there is no SRV record ${name}.${hostname}`)
    const user = username === '' ? '' : `${username}:${password}@`
    return `${plain}://${user}${record.name}:${record.port}`
  }
}

/** By priority; within one priority the heavier first. */
function inOrder(records: readonly SrvRecord[]): SrvRecord[] {
  return [...records].sort((a, b) => a.priority - b.priority || b.weight - a.weight)
}

/** A Server Reference is a list of hosts, with or without a port (MQTT 5, 4.11); the first is dialled. */
function referenceUrl(home: string, reference: string): string {
  const [first = ''] = reference.trim().split(/\s+/)
  const { protocol, pathname, username, password } = new URL(home)
  const user = username === '' ? '' : `${username}:${password}@`
  return `${protocol.replace('+srv', '')}//${user}${first}${pathname}`
}
