import { isObservable, Observable } from 'rxjs'
import type { HandlerAttempt } from '../client/inbound/handler-attempt.js'
import { type AnswerOnItsWay, AnswerQueue, type AnswersEnd } from '../client/requests/response-queue.js'
import { MqttError } from '../core/errors.js'

/** Responses of one stream that may wait for the link. */
const MAX_WAITING_ANSWERS = 1_000

/** The values of a source on their way into messages. */
export class SourcedAnswers {
  private queue: AnswerQueue | undefined

  constructor(
    private readonly source: Observable<unknown> | AsyncIterable<unknown>,
    private readonly attempt: HandlerAttempt,
  ) {}

  get isObservable(): boolean {
    return isObservable(this.source)
  }

  /** The run that it came from has failed. */
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

  /** Nobody wants them any more, and the `signal` of the handler says so. */
  cancel(reason: MqttError): void {
    this.queue?.cancel()
    this.attempt.abort(reason)
  }

  outOfTime(timeoutMs: number | undefined): void {
    this.attempt.abort(new MqttError('TIMEOUT', `the stream of responses did not end within ${timeoutMs} ms`))
  }
}

/** A source that ends when nobody waits for the run any more that it came from. */
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
    // What has ended by now has ended, and may have failed.
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort)
    subscriber.add(() => signal.removeEventListener('abort', abort))
  })
}

export function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}
