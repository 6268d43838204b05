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
import type { InboxKey, InboxLimits } from './inbox-tables.js'
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

/** The calls to a thread, by kind. */
export type CallMap<M> = { readonly [K in keyof M]: { readonly given: object; readonly result: unknown } }

/** One call. The calls of one turn of the event loop are sent in one list. */
type CallIn<M extends CallMap<M>> = {
  [K in keyof M]: {
    readonly kind: K
    readonly id: number
    /** Wall clock of the caller, which a test may have faked. */
    readonly nowMs: number
  } & M[K]['given']
}[keyof M]

export type StoreCall = CallIn<StoreCalls>

export type CallKind<K extends StoreCall['kind']> = Extract<StoreCall, { readonly kind: K }>

/** Settings with which an inbox is opened. */
interface InboxSettings extends StorePlaceOptions {
  readonly engine: SqliteEngineName | undefined
}

/** What each call sends to the thread of an inbox, and its result. */
export interface InboxCalls {
  open: { readonly given: { readonly settings: InboxSettings }; readonly result: undefined }
  has: { readonly given: InboxKey & InboxLimits; readonly result: boolean }
  add: { readonly given: InboxKey & InboxLimits; readonly result: undefined }
  close: { readonly given: object; readonly result: undefined }
}

export type InboxCall = CallIn<InboxCalls>

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

/** What a thread sends after each commit. */
export interface ThreadReport {
  readonly results: readonly StoreResult[]
}

export interface InboxReport extends ThreadReport {
  readonly repairs: readonly string[]
}

export interface StoreReport extends ThreadReport {
  readonly told: readonly ToldSettlement[]
  readonly repairs: readonly string[]
  readonly contents: StoreContents
}
