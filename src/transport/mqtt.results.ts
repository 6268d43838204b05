import { Logger } from '@nestjs/common'
import { MqttRecord } from '@nestjs/microservices'
import {
  from,
  isObservable,
  lastValueFrom,
  Observable,
  type Subscription,
  takeWhile,
  UnsubscriptionError,
} from 'rxjs'
import type { HandlerAttempt } from '../client/inbound/delivery.js'
import type { ResponseValue, ResultReader } from '../client/requests/request-messages.js'
import type { ValueSource } from '../client/requests/response-queue.js'
import { describeCause } from '../core/errors.js'
import { recordSchema } from '../options/client-options.js'
import { parseOptions } from '../options/schema.js'

/** Returns the data and the options of a record. @throws MqttError `INVALID_OPTION` */
export function readRecord(owner: string, value: unknown): ResponseValue {
  if (!(value instanceof MqttRecord)) return { data: value, options: {} }
  parseOptions(owner, recordSchema, value.options)
  return { data: value.data, options: value.options ?? {} }
}

/** What handlers of Nest return. */
export const NEST_RESULTS: ResultReader = {
  sourceOf: result => (isObservable(result) ? valuesOf(result) : undefined),
  valueOf: value => readRecord('record of a handler', value),
  // The exception filters of the application have run.
  errorOf: error => error,
}

/** An event whose handler returns an Observable is handled when the Observable completes. */
export async function untilComplete(result: unknown, attempt: HandlerAttempt): Promise<void> {
  if (isObservable(result))
    await lastValueFrom(whileWanted(result, attempt.signal), { defaultValue: undefined })
}

/** Returns an Observable that mirrors `source`, and fails with the reason of `signal` when it is aborted. */
function whileWanted<T>(source: Observable<T>, signal: AbortSignal): Observable<T> {
  return new Observable(subscriber => {
    const abort = (): void => subscriber.error(signal.reason)
    const subscription = source.subscribe({
      next: value => subscriber.next(value),
      error: (error: unknown) => subscriber.error(error),
      complete: () => subscriber.complete(),
    })
    subscriber.add(() => unsubscribe(subscription))
    // Has no effect if the source has already ended.
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort)
    subscriber.add(() => signal.removeEventListener('abort', abort))
  })
}

/** The values of an Observable. It stops at once when no more are wanted, also while it is being subscribed. */
function valuesOf(source: Observable<unknown>): ValueSource {
  return {
    subscribe: ({ next, error, complete }) => {
      const subscription = from(source)
        .pipe(takeWhile(value => next(value)))
        .subscribe({ error, complete })
      return { unsubscribe: () => unsubscribe(subscription) }
    },
  }
}

/** A timer or a signal may be the caller, so an error of the application that is thrown here would end the process. */
function unsubscribe(subscription: Subscription): void {
  try {
    subscription.unsubscribe()
  } catch (error) {
    const cause: unknown = error instanceof UnsubscriptionError ? error.errors[0] : error
    const log = new Logger('MqttTransport')
    log.error(`the teardown of an Observable that a handler returned failed: ${describeCause(cause)}`)
  }
}
