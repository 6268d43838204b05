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
    orderKey: ({ topic }) => topic,
    timeoutMs: undefined,
    retries: undefined,
    onFailure: 'ack',
    acknowledges: 'at-end',
    onFailed: () => {},
    ...fields,
    id: last,
  }
}
