import type { MqttError } from '../../core/errors.js'

/** One call of a handler: what it may be told, and what it may tell. */
export class HandlerAttempt {
  /**
   * Set for a request: sends the failure to the requester, also after the time limit of the run. A failure that was
   * reported is not retried and has no dead letter.
   */
  reportFailure: ((error: unknown) => void) | undefined
  private controller: AbortController | undefined
  private abortedWith: MqttError | undefined

  constructor(
    /** From 1. */
    readonly number: number,
    private readonly onAck: () => void,
    private readonly onReturned: () => void,
  ) {}

  /** Made only for a handler that asks: most do not. */
  get signal(): AbortSignal {
    this.controller ??= new AbortController()
    if (this.abortedWith !== undefined && !this.controller.signal.aborted)
      this.controller.abort(this.abortedWith)
    return this.controller.signal
  }

  /** Nobody waits for this call any more. */
  get isAborted(): boolean {
    return this.abortedWith !== undefined
  }

  ack(): void {
    this.onAck()
  }

  /**
   * The handler has returned, and what is still to come is no code of it: its slot is free, and the next message of
   * the same key may begin.
   */
  returned(): void {
    this.onReturned()
  }

  /** Nobody waits for this call any more. */
  abort(reason: MqttError): void {
    this.abortedWith ??= reason
    this.controller?.abort(reason)
  }
}
