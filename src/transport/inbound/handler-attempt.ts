import type { MqttError } from '../../errors.js'

/** One call of a handler: what it may be told, and what it may tell. */
export class HandlerAttempt {
  private controller: AbortController | undefined
  private abortedWith: MqttError | undefined

  constructor(
    /** From 1. */
    readonly number: number,
    private readonly onAck: () => void,
  ) {}

  /** Made only for a handler that asks: most do not. */
  get signal(): AbortSignal {
    this.controller ??= new AbortController()
    if (this.abortedWith !== undefined && !this.controller.signal.aborted)
      this.controller.abort(this.abortedWith)
    return this.controller.signal
  }

  ack(): void {
    this.onAck()
  }

  /** Nobody waits for this call any more. */
  abort(reason: MqttError): void {
    this.abortedWith ??= reason
    this.controller?.abort(reason)
  }
}
