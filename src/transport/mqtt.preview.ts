import { type CustomTransportStrategy, Server, type Transport } from '@nestjs/microservices'

/** Takes the handlers of an application that is only looked at (`preview: true`). Nothing is dialled. */
export class PreviewTransport extends Server implements CustomTransportStrategy {
  constructor(transportId: Transport | symbol) {
    super()
    this.transportId = transportId
  }

  listen(callback: () => void): void {
    callback()
  }

  close(): void {}

  override on(): void {}

  override unwrap<T>(): T {
    throw new Error('there is no connection in a preview')
  }
}
