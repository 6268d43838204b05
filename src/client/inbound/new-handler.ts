import type { InboundHandler } from './inbound-handler.js'

let last = 0

/** A handler with the rules that are given, and the plainest for the others. */
export function newHandler(
  fields: Pick<InboundHandler, 'name' | 'run'> & Partial<Omit<InboundHandler, 'id'>>,
): InboundHandler {
  last += 1
  return {
    concurrency: Number.POSITIVE_INFINITY,
    isPassive: false,
    isInternal: false,
    takesReplies: true,
    orderKey: 'topic',
    timeoutMs: undefined,
    retries: undefined,
    onFailure: 'ack',
    acknowledges: 'at-end',
    onFailed: () => {},
    ...fields,
    id: last,
  }
}

/** A reply that only wildcards take is no event for them, and nothing to warn about. */
export function replyTakers(handlers: readonly InboundHandler[]): readonly InboundHandler[] {
  const takers = handlers.filter(handler => handler.takesReplies)
  return takers.length === 0 && handlers.length > 0 ? [NOBODY] : takers
}

const NOBODY = newHandler({ name: 'nobody', isPassive: true, run: async () => {} })
