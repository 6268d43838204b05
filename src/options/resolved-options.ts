import type { Duplex } from 'node:stream'
import type { DelayRule, ResolvedBackoff } from '../core/connection/reconnect-rules.js'
import type {
  ConnectionFailure,
  InboundOptions,
  MqttCredentials,
  MqttModuleOptions,
  OutboundOptions,
  RequestDefaults,
  TlsFileOptions,
  Verdict,
} from './options.js'
import type { PassThroughOptions } from './schema.js'

const HIDDEN = '[hidden]'

/** Holds a secret. Only `reveal()` returns it; `util.inspect` and JSON do not show it. */
export class Sealed<T> {
  readonly #value: T

  constructor(value: T) {
    this.#value = value
  }

  /** A method, because `util.inspect` can be configured to call getters. */
  reveal(): T {
    return this.#value
  }

  toJSON(): string {
    return HIDDEN
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return HIDDEN
  }
}

export type { ResolvedBackoff }

type Defaulted =
  | 'refusedSubscription'
  | 'connect'
  | 'connectTimeoutMs'
  | 'protocolVersion'
  | 'drainTimeoutMs'
  | 'codec'
  | 'variables'
  | 'clean'
  | 'envelope'

/** Validated options with all defaults. */
export interface ResolvedOptions extends Required<Pick<MqttModuleOptions, Defaulted>> {
  readonly createStream: (() => Duplex) | undefined
  readonly credentials: (() => MqttCredentials | Promise<MqttCredentials>) | undefined
  readonly localAddress: string | undefined
  readonly onStopped: ((cause: ConnectionFailure) => void) | undefined
  readonly sharedGroup: string | undefined
  readonly clientId: string
  readonly reconnect: {
    readonly delayMs: DelayRule
    readonly resetAfterMs: number
    readonly verdict: ((cause: ConnectionFailure) => Verdict | undefined) | undefined
  }
  readonly inbound: Required<InboundOptions>
  readonly outbound: Required<OutboundOptions>
  readonly requests: Required<RequestDefaults>
  readonly allowResponseTopic: ((responseTopic: string) => boolean) | undefined
  /** Whether the broker keeps the session when a connection ends. */
  readonly keepsSession: boolean
  /** Number of URLs to try. */
  readonly targets: number
  readonly secrets: Sealed<DialSecrets>
}

/** Addresses and credentials. They contain passwords, tokens and keys. */
export interface DialSecrets {
  /** Empty if `createStream` is set. */
  readonly urls: readonly string[]
  /** Options that are passed to `mqtt` unchanged. */
  readonly passThrough: PassThroughOptions
  readonly tlsFiles: { readonly [K in keyof TlsFileOptions]: TlsFileOptions[K] | undefined }
}
