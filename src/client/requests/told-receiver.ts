import type { MqttError } from '../../core/errors.js'
import type { RequestProtocol } from '../../core/requests/reply-target.js'
import type { ClientEvents, RequestEvent } from '../events.js'
import type { ResponseReceiver } from './open-requests.js'

/** The receiver of a request whose start and end are told. */
export class ToldReceiver implements ResponseReceiver {
  private isOver = false

  constructor(
    private readonly receiver: ResponseReceiver,
    private readonly events: ClientEvents,
    private readonly topic: string,
    private readonly protocol: RequestProtocol,
  ) {
    events.request.tell(this.eventOf('start'))
  }

  next(value: unknown): void {
    this.receiver.next(value)
  }

  end(): void {
    this.tellEnd()
    this.receiver.end()
  }

  fail(error: MqttError): void {
    this.tellEnd(error)
    this.receiver.fail(error)
  }

  /** The caller has left. */
  cancelled(): void {
    this.tellEnd()
  }

  private tellEnd(error?: MqttError): void {
    if (this.isOver) return
    this.isOver = true
    this.events.request.tell({ ...this.eventOf('end'), ...(error === undefined ? {} : { error }) })
  }

  private eventOf(type: RequestEvent['type']): RequestEvent {
    return { clientId: this.events.clientId, type, key: this, topic: this.topic, protocol: this.protocol }
  }
}
