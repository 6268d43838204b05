import type { PublishPacket } from '../../src/client/connection/link.js'
import {
  Delivery,
  HandlerAttempt,
  HandlerRun,
  type InboundHandler,
  newHandler,
} from '../../src/client/inbound/delivery.js'
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
  // As if it had arrived on the first connection.
  if (delivery.packet.qos === 1) delivery.connection = 1
  delivery.runs = handlers.map(handler => new HandlerRun(delivery, handler, topic))
  return delivery
}

/** A first attempt whose result is ignored. */
export function loneAttempt(): HandlerAttempt {
  const [run] = deliveryTo([namedHandler('lone')]).runs
  if (run === undefined) throw new Error('there is no run')
  return new HandlerAttempt(1, run, { returned: () => {} })
}
