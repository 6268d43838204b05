import type { Duplex } from 'node:stream'
import type { DelayRule, ResolvedBackoff } from '../core/connection/reconnect-policy.js'
import type {
  ConnectionFailure,
  InboundOptions,
  MqttCredentials,
  MqttModuleOptions,
  OutboundOptions,
  PassThroughOptions,
  RequestDefaults,
  TlsFileOptions,
  Verdict,
} from './options.js'
import type { Sealed } from './sealed.js'

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

/** Options after the door: checked, with every default in place. */
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
  /** The broker keeps subscriptions and unacknowledged messages when a connection ends. */
  readonly keepsSession: boolean
  /** How many URLs there are to dial, in turn. */
  readonly targets: number
  readonly secrets: Sealed<DialSecrets>
}

/** What is dialled and with what: passwords, tokens and keys are in it. */
export interface DialSecrets {
  /** Empty where `createStream` is given. */
  readonly urls: readonly string[]
  /** Options that go to `mqtt` as they came. */
  readonly passThrough: PassThroughOptions
  readonly tlsFiles: { readonly [K in keyof TlsFileOptions]: TlsFileOptions[K] | undefined }
}
