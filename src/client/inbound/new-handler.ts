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
    isOpenEnded: false,
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

/** Removes the handlers that must not receive responses. If none is left, the message still counts as handled. */
export function withoutOpenEnded(handlers: readonly InboundHandler[]): readonly InboundHandler[] {
  const left = handlers.filter(handler => !handler.isOpenEnded)
  return left.length === 0 ? [NOBODY] : left
}

const NOBODY = newHandler({ name: 'nobody', isPassive: true, run: async () => {} })
