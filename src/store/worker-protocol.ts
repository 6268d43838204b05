import type { MqttErrorCode } from '../core/errors.js'
import type {
  MessageToStore,
  StoreAddition,
  StoreContents,
  StoredMessage,
  StoredOutcome,
  StoredOutcomeQuery,
  StoredSettlement,
  StoreLimits,
  StoreReadLimit,
} from '../core/outbound/message-store.js'
import type { SqliteEngineName } from './sqlite-engine.js'
import type { StorePlaceOptions } from './store-connection.js'
import type { ToldSettlement } from './store-file.js'

/** Settings with which a store is opened. */
export interface StoreSettings extends StorePlaceOptions {
  readonly limits: StoreLimits
  readonly engine: SqliteEngineName | undefined
}

/** What each call sends to the thread, and its result. */
export interface StoreCalls {
  open: { readonly given: { readonly settings: StoreSettings }; readonly result: undefined }
  add: { readonly given: { readonly message: MessageToStore }; readonly result: StoreAddition }
  settle: {
    readonly given: {
      readonly settlements: readonly { readonly position: number; readonly outcome: StoredOutcome }[]
    }
    readonly result: undefined
  }
  read: {
    readonly given: { readonly after: number; readonly limit: StoreReadLimit }
    readonly result: readonly StoredMessage[]
  }
  expire: { readonly given: { readonly untilMs: number; readonly ended: number }; readonly result: number }
  outcomes: {
    readonly given: { readonly query: StoredOutcomeQuery }
    readonly result: readonly StoredSettlement[]
  }
  close: { readonly given: object; readonly result: undefined }
}

type CallOf<K extends keyof StoreCalls> = {
  readonly kind: K
  readonly id: number
  /** Wall clock of the caller, which a test may have faked. */
  readonly nowMs: number
} & StoreCalls[K]['given']

/** One call. The calls of one turn of the event loop are sent in one list. */
export type StoreCall = { [K in keyof StoreCalls]: CallOf<K> }[keyof StoreCalls]

export type CallKind<K extends StoreCall['kind']> = Extract<StoreCall, { readonly kind: K }>

/** An error that crosses from one thread to the other. */
export interface SentError {
  readonly code: MqttErrorCode
  readonly message: string
  readonly cause?: unknown
}

export type StoreResult = { readonly id: number } & (
  | { readonly value: unknown }
  | { readonly error: SentError }
)

/** What the thread sends after each commit. */
export interface StoreReport {
  readonly results: readonly StoreResult[]
  readonly told: readonly ToldSettlement[]
  readonly repairs: readonly string[]
  readonly contents: StoreContents
}
