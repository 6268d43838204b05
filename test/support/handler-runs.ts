import type { PublishPacket } from '../../src/transport/connection/link.js'
import { Delivery, HandlerRun } from '../../src/transport/inbound/delivery.js'
import type { InboundHandler } from '../../src/transport/inbound/inbound-handler.js'
import { newHandler } from '../../src/transport/inbound/new-handler.js'
import { message } from './session-on-peer.js'

/** A handler that is known by its name only. */
export function namedHandler(name: string, fields: Partial<InboundHandler> = {}): InboundHandler {
  return newHandler({ name, run: async () => {}, ...fields })
}

/** A message with a run for each of the handlers. */
export function deliveryTo(
  handlers: readonly InboundHandler[],
  topic = 'a',
  fields: Partial<PublishPacket> = {},
): Delivery & { readonly runs: readonly HandlerRun[] } {
  const delivery = new Delivery(message(topic, fields))
  delivery.runs = handlers.map(handler => new HandlerRun(delivery, handler, topic))
  return delivery
}
