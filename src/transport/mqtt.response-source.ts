import { isObservable, Observable } from 'rxjs'
import type { HandlerAttempt } from '../client/inbound/handler-attempt.js'
import { type AnswerOnItsWay, AnswerQueue, type AnswersEnd } from '../client/requests/response-queue.js'
import { MqttError } from '../core/errors.js'

/** Maximum number of responses of one stream that wait for the link. */
const MAX_WAITING_ANSWERS = 1_000

/** Passes the values of a source to the messages of a stream. */
export class SourcedAnswers {
  private queue: AnswerQueue | undefined

  constructor(
    private readonly source: Observable<unknown> | AsyncIterable<unknown>,
    private readonly attempt: HandlerAttempt,
  ) {}

  get isObservable(): boolean {
    return isObservable(this.source)
  }

  /** Whether the run of the source has been aborted. */
  get isUnwanted(): boolean {
    return this.attempt.isAborted
  }

  sendTo(send: (value: unknown, isLast: boolean) => AnswerOnItsWay): Promise<AnswersEnd> {
    const { source, attempt } = this
    this.queue = new AnswerQueue(MAX_WAITING_ANSWERS, send)
    return isObservable(source)
      ? this.queue.take(whileWanted(source, attempt.signal))
      : this.queue.takeEach(source, attempt.signal)
  }

  /** Discards the remaining values and aborts the `signal` of the handler. */
  cancel(reason: MqttError): void {
    this.queue?.cancel()
    this.attempt.abort(reason)
  }

  outOfTime(timeoutMs: number | undefined): void {
    this.attempt.abort(new MqttError('TIMEOUT', `the stream of responses did not end within ${timeoutMs} ms`))
  }
}

/** Returns an Observable that mirrors `source`, and fails with the reason of `signal` when it is aborted. */
export function whileWanted<T>(source: Observable<T>, signal: AbortSignal): Observable<T> {
  return new Observable(subscriber => {
    const abort = (): void => subscriber.error(signal.reason)
    subscriber.add(
      source.subscribe({
        next: value => subscriber.next(value),
        error: (error: unknown) => subscriber.error(error),
        complete: () => subscriber.complete(),
      }),
    )
    // Has no effect if the source has already ended.
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort)
    subscriber.add(() => signal.removeEventListener('abort', abort))
  })
}

export function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}
