import { vi } from 'vitest'
import type { StoredSettlement } from '../../src/core/outbound/message-store.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { type MemoryStore, memoryStore } from '../../src/testing/memory-store.js'
import { flow, publisherOnPeer, Watched } from './publisher-on-peer.js'

const STORE_AFTER_MS = 200
export const STORED = { qos: 1, whenBlocked: 'store' } as const

/** A connected client with a store in memory, under a clock that the test holds. */
export async function storingOnPeer(
  options: MqttModuleOptions & { readonly store?: MemoryStore } = {},
  connack: Parameters<typeof publisherOnPeer>[1] = {},
) {
  const { store = memoryStore(), ...others } = options
  const settlements: StoredSettlement[] = []
  const onStoredSettled = (settlement: StoredSettlement): void => void settlements.push(settlement)
  const parts = await publisherOnPeer(
    { store, storeAfterMs: STORE_AFTER_MS, onStoredSettled, ...others },
    connack,
  )
  const publish = (topic: string, payload: unknown, more: object = {}) =>
    new Watched(parts.mqtt.publish(topic, payload, { ...STORED, ...more }))
  return { ...parts, store, settlements, publish }
}

export type StoringOnPeer = Awaited<ReturnType<typeof storingOnPeer>>

/** The publishes that have arrived, each as topic and payload, with `again` if it has DUP. */
export function publishesOn(connection: PeerConnection): string[] {
  return connection.received.flatMap(packet =>
    packet.cmd === 'publish'
      ? [`${packet.topic} ${packet.payload.toString()}${packet.dup ? ' again' : ''}`]
      : [],
  )
}

/** Acknowledges every publish of this connection that was not acknowledged by it, in order. */
export class Acknowledging {
  private read = 0

  constructor(readonly connection: PeerConnection) {}

  async all(reasonCode = 0, most = Number.POSITIVE_INFINITY): Promise<void> {
    await flow()
    const { received } = this.connection
    for (let count = 0; this.read < received.length && count < most; this.read += 1) {
      const packet = received[this.read]
      if (packet?.cmd !== 'publish' || packet.qos === 0) continue
      this.connection.send({ cmd: 'puback', messageId: packet.messageId ?? 0, reasonCode })
      count += 1
    }
    await flow()
  }

  /** Acknowledges until nothing more arrives. */
  async untilQuiet(): Promise<void> {
    for (let before = -1; before !== this.connection.received.length; ) {
      before = this.connection.received.length
      await this.all()
    }
  }
}

/** The time until an unacknowledged publish is stored. */
export async function waitUntilStored(): Promise<void> {
  vi.advanceTimersByTime(STORE_AFTER_MS + 20)
  await flow()
}
