import type { PublishPacket } from '../../src/client/connection/link.js'
import { Delivery, HandlerRun } from '../../src/client/inbound/delivery.js'
import type { InboundHandler } from '../../src/client/inbound/inbound-handler.js'
import { newHandler } from '../../src/client/inbound/new-handler.js'
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
