import { type CustomTransportStrategy, Server, type Transport } from '@nestjs/microservices'

/** Transport of an application in preview mode (`preview: true`). It registers handlers and never connects. */
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
    throw new Error('there is no connection in preview mode')
  }
}
