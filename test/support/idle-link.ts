import type { Link } from '../../src/client/connection/link.js'

const nothing = (): void => {}

/** A link on MQTT 5 that does nothing, except what a test replaces. */
export function idleLink(fields: Partial<Link>): Link {
  return {
    protocolVersion: 5,
    unwrap: () => undefined,
    isIntakePaused: false,
    intakeResumedMs: 0,
    behindSinceMs: undefined,
    writer: { isFlushAwaited: false, isCongested: () => false, publish: () => 0, sizeOf: () => 0 },
    receivedBytes: 0,
    reportTo: nothing,
    deliverTo: nothing,
    isWritable: () => true,
    send: nothing,
    pauseIntake: nothing,
    resumeIntake: nothing,
    disconnect: nothing,
    terminate: nothing,
    destroy: nothing,
    ...fields,
  }
}
