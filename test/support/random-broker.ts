import type { PeerConnection } from '../../src/testing/index.js'
import type { SeededRandom } from './seeded-random.js'

type Answer = 'puback' | 'pubrec' | 'pubcomp'

const IDENTIFIER_IN_USE = 0x91
const IDENTIFIER_NOT_FOUND = 0x92
const REFUSALS = [0x80, 0x83, 0x87, 0x97, 0x99] as const

/**
 * The broker's side of QoS 1 and 2 over several connections of one session. It responds on request with random kinds of
 * responses, and fails if the client violates a rule.
 */
export class RandomBroker {
  /** The most PUBLISH packets that were unacknowledged at a time. */
  mostOpen = 0
  published = 0
  /** What was sent on an earlier connection, too. */
  repeated = 0
  private connection: PeerConnection | undefined
  private receiveMaximum = 0
  private read = 0
  /** PUBLISH packets of QoS 1 and 2 on this connection that are not acknowledged. */
  private open = new Set<number>()
  private due: Record<Answer, number[]> = { puback: [], pubrec: [], pubcomp: [] }
  /** QoS 2 messages of the session between PUBREC and PUBCOMP. */
  private readonly received = new Set<number>()

  constructor(
    private readonly random: SeededRandom,
    /** Fraction of the responses that refuse. MQTT 3.1.1 has none. */
    private readonly refused = 0,
  ) {}

  connected(connection: PeerConnection, receiveMaximum = 65_535): void {
    this.connection = connection
    this.receiveMaximum = receiveMaximum
    this.read = 0
    this.open = new Set()
    this.due = { puback: [], pubrec: [], pubcomp: [] }
  }

  /** The session is gone. */
  forget(): void {
    this.received.clear()
  }

  /** Number of responses that are due. */
  get pending(): number {
    const { puback, pubrec, pubcomp } = this.due
    return puback.length + pubrec.length + pubcomp.length
  }

  /** Takes what has arrived, packet by packet. Throws where the client may not send this now. */
  take(): void {
    const { received } = this.connection ?? { received: [] }
    for (let packet = received[this.read]; packet !== undefined; packet = received[this.read]) {
      this.read += 1
      if (packet.cmd === 'publish') this.takePublish(packet.qos, packet.messageId ?? 0, packet.dup)
      else if (packet.cmd === 'pubrel') this.takePubrel(packet.messageId ?? 0)
    }
  }

  /** Sends one response of a random kind; those of one kind are sent in order. */
  answer(): void {
    const { random, due } = this
    const kinds = (['puback', 'pubrec', 'pubcomp'] as const).filter(kind => due[kind].length > 0)
    const [first, ...rest] = kinds
    if (first === undefined) return
    const cmd = random.pick([first, ...rest])
    const messageId = due[cmd].shift() ?? 0
    const isRefused = random.chance(this.refused)
    const reasonCode = isRefused ? this.refusal(cmd) : this.success(cmd, messageId)
    if (cmd === 'pubrec' && !isRefused) this.received.add(messageId)
    else {
      this.received.delete(messageId)
      this.open.delete(messageId)
    }
    this.connection?.send({ cmd, messageId, reasonCode })
  }

  /** PUBCOMP has one such code (MQTT 5, 3.7.2.1). */
  private refusal(cmd: Answer): number {
    return cmd === 'pubcomp' ? IDENTIFIER_NOT_FOUND : this.random.pick(REFUSALS)
  }

  private success(cmd: Answer, messageId: number): number {
    const isKnown = this.received.has(messageId)
    if (cmd === 'pubrec' && isKnown && this.random.chance(0.5)) return IDENTIFIER_IN_USE
    return cmd === 'pubcomp' && !isKnown ? IDENTIFIER_NOT_FOUND : 0
  }

  private takePubrel(messageId: number): void {
    if (!this.open.has(messageId)) this.repeated += 1
    this.due.pubcomp.push(messageId)
  }

  private takePublish(qos: 0 | 1 | 2, messageId: number, dup: boolean): void {
    this.published += 1
    if (dup) this.repeated += 1
    if (qos === 0) return
    const isKept = this.received.has(messageId) && !(qos === 2 && dup)
    if (messageId === 0 || this.open.has(messageId) || isKept)
      throw new Error(`the Packet Identifier ${messageId} is in use`)
    this.open.add(messageId)
    this.mostOpen = Math.max(this.mostOpen, this.open.size)
    if (this.open.size > this.receiveMaximum)
      throw new Error(`${this.open.size} are unacknowledged; Receive Maximum is ${this.receiveMaximum}`)
    this.due[qos === 1 ? 'puback' : 'pubrec'].push(messageId)
  }
}
