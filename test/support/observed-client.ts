import type { ObservedClient } from '../../src/client/events.js'

/** The client of events in a test of one part. */
export const OBSERVED_CLIENT: ObservedClient = {
  clientId: 'test',
  state: { status: 'idle' },
  protocolVersion: 5,
  broker: undefined,
  handlerSlots: { inUse: 0, limit: 1 },
  stats: () => {
    throw new Error('this client has no counters')
  },
}
