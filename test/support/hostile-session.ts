import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterEach, beforeEach, expect } from 'vitest'
import type { MqttError } from '../../src/core/errors.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import { subscriberOnPeer } from './subscriber-on-peer.js'

/** Fails a test of this file by which an error gets out of the package. */
export function failOnEscapedErrors(): void {
  const escaped: unknown[] = []
  const note = (error: unknown): void => {
    escaped.push(error)
  }

  beforeEach(() => {
    escaped.length = 0
    process.on('unhandledRejection', note)
    process.on('uncaughtException', note)
  })
  afterEach(async () => {
    await nextTurn()
    process.off('unhandledRejection', note)
    process.off('uncaughtException', note)
    expect(escaped).toEqual([])
  })
}

/** A session that always dials again, and the causes of the losses. */
export async function listening(options: MqttModuleOptions) {
  const causes: MqttError[] = []
  const parts = await subscriberOnPeer({
    reconnect: { delayMs: [0], resetAfterMs: 0, verdict: () => 'retry' },
    ...options,
  })
  parts.session.connection.attach({
    lost: cause => {
      causes.push(cause)
    },
  })
  return { ...parts, causes }
}
