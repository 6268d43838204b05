import type { HeldBytes } from '../../core/inbound/held-bytes.js'
import type { Delivery } from './delivery.js'

/** Every message that is not done, in the order in which they came. */
export class HeldMessages {
  readonly open = new Set<Delivery>()
  /** Those of which a handler has begun. */
  started = 0
  /** The broker has handed them over, and does not wait for them. */
  qos2 = 0

  constructor(private readonly held: HeldBytes) {}

  add(delivery: Delivery): void {
    this.open.add(delivery)
    if (delivery.packet.qos === 2) this.qos2 += 1
    this.charge(delivery)
  }

  leave(delivery: Delivery): void {
    if (!this.open.delete(delivery)) return
    if (delivery.started > 0) this.started -= 1
    if (delivery.packet.qos === 2) this.qos2 -= 1
  }

  begins(delivery: Delivery): void {
    if (delivery.started === 0) this.started += 1
    delivery.started += 1
  }

  /** Its bytes count from now on. */
  charge(delivery: Delivery): void {
    if (delivery.isCharged) return
    delivery.isCharged = true
    this.held.add(delivery.bytes)
  }

  /** Nothing holds it any more. */
  discharge(delivery: Delivery): void {
    if (!delivery.isCharged) return
    delivery.isCharged = false
    this.held.remove(delivery.bytes)
  }
}
