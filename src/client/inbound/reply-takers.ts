import type { InboundHandler } from './inbound-handler.js'
import { newHandler } from './new-handler.js'

/** A reply that only wildcards take is no event for them, and nothing to warn about. */
export function replyTakers(handlers: readonly InboundHandler[]): readonly InboundHandler[] {
  const takers = handlers.filter(handler => handler.takesReplies)
  return takers.length === 0 && handlers.length > 0 ? [NOBODY] : takers
}

const NOBODY = newHandler({ name: 'nobody', isPassive: true, run: async () => {} })
