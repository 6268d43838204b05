import type { Duplex } from 'node:stream'
import { generate, type IPublishPacket, type ISubscribePacket, type Packet, parser } from 'mqtt-packet'
import { matchesTopicFilter, parseTopicFilter } from '../../src/core/topic/topic-filter.js'
import { streamPair } from '../../src/testing/stream-pair.js'

/** What brokers do differently. The defaults are those of mosquitto 2.0 with MQTT 5. */
export interface RetainingRules {
  /** A second SUBSCRIBE changes Retain As Published. mosquitto 2.0 ignores that. @default false */
  readonly appliesOptions?: boolean
  /**
   * One copy of a message, with the identifiers of all subscriptions that match. It has the RETAIN flag if `any` or `all` of
   * them have Retain As Published. @default one copy for each of them
   */
  readonly mergesCopies?: 'any' | 'all'
  /** @default true */
  readonly hasIdentifiers?: boolean
  /** The session outlives a connection. @default false */
  readonly keepsSession?: boolean
  /** How a SUBSCRIBE of this filter ends, if it is not granted. */
  readonly refuses?: (filter: string) => 'refused' | 'disconnected' | undefined
  /** Refuses every UNSUBSCRIBE. @default false */
  readonly refusesUnsubscribe?: boolean
}

interface Leaf {
  readonly retainAsPublished: boolean
  readonly identifier: number | undefined
}

interface Stored {
  readonly payload: Buffer
}

/** A broker with retained messages, which processes one packet at a time. QoS 0 only. */
export class RetainingPeer {
  private readonly retained = new Map<string, Stored>()
  private readonly leaves = new Map<string, Leaf>()
  private link: Duplex | undefined
  private protocolVersion = 4
  /** Every SUBSCRIBE and UNSUBSCRIBE that arrived, as their filters. */
  readonly log: string[] = []
  /** Called after each packet of the client. */
  afterPacket: (packet: Packet) => void = () => {}

  constructor(private readonly rules: RetainingRules = {}) {}

  /** The filters that are subscribed. */
  get filters(): string[] {
    return [...this.leaves.keys()]
  }

  readonly createStream = (): Duplex => {
    const [client, server] = streamPair()
    const packets = parser()
    packets.on('packet', packet => {
      if (this.link !== server && packet.cmd !== 'connect') return
      if (packet.cmd === 'connect') this.link = server
      this.take(packet)
      this.afterPacket(packet)
    })
    server.on('data', (bytes: Buffer) => packets.parse(bytes))
    server.on('error', () => {})
    return client
  }

  /** Processes a PUBLISH of another client. */
  publish(topic: string, text: string, retain = true): void {
    const payload = Buffer.from(text)
    if (retain && payload.length === 0) this.retained.delete(topic)
    else if (retain) this.retained.set(topic, { payload })
    const matching = [...this.leaves].filter(([filter]) => matches(filter, topic)).map(([, leaf]) => leaf)
    if (matching.length === 0) return
    const retains = (leaf: Leaf): boolean => retain && leaf.retainAsPublished
    const { mergesCopies } = this.rules
    if (mergesCopies !== undefined) {
      const isRetained = mergesCopies === 'any' ? matching.some(retains) : matching.every(retains)
      const identifiers = matching.flatMap(({ identifier }) => identifier ?? [])
      return this.deliver(topic, payload, isRetained, identifiers)
    }
    for (const leaf of matching)
      this.deliver(topic, payload, retains(leaf), leaf.identifier === undefined ? [] : [leaf.identifier])
  }

  cut(): void {
    this.link?.destroy()
    this.link = undefined
    if (this.rules.keepsSession !== true) this.leaves.clear()
  }

  private take(packet: Packet): void {
    if (packet.cmd === 'connect') this.accept(packet.protocolVersion ?? 4)
    else if (packet.cmd === 'pingreq') this.send({ cmd: 'pingresp' })
    else if (packet.cmd === 'subscribe') this.subscribe(packet)
    else if (packet.cmd === 'unsubscribe') {
      this.log.push(...packet.unsubscriptions.map(filter => `-${filter}`))
      const isRefused = this.rules.refusesUnsubscribe === true
      if (!isRefused) for (const filter of packet.unsubscriptions) this.leaves.delete(filter)
      const granted = packet.unsubscriptions.map(() => (isRefused ? REFUSED : 0))
      this.send({ cmd: 'unsuback', messageId: packet.messageId ?? 0, granted })
    }
  }

  private accept(protocolVersion: number): void {
    this.protocolVersion = protocolVersion
    const sessionPresent = this.rules.keepsSession === true && this.leaves.size > 0
    const properties =
      this.rules.hasIdentifiers === false ? { properties: { subscriptionIdentifiersAvailable: false } } : {}
    this.send({ cmd: 'connack', reasonCode: 0, returnCode: 0, sessionPresent, ...properties })
  }

  private subscribe({ subscriptions, messageId = 0, properties }: ISubscribePacket): void {
    const granted: number[] = []
    for (const { topic: filter, rap = false, rh = 0 } of subscriptions) {
      this.log.push(`+${filter}`)
      const end = this.rules.refuses?.(filter)
      if (end === 'disconnected') return this.cut()
      granted.push(end === 'refused' ? REFUSED : 0)
      if (end === 'refused') continue
      const known = this.leaves.get(filter)
      const isKept = known !== undefined && this.rules.appliesOptions !== true
      const identifier = properties?.subscriptionIdentifier
      this.leaves.set(filter, { retainAsPublished: isKept ? known.retainAsPublished : rap, identifier })
      if (rh === 2 || (rh === 1 && known !== undefined)) continue
      for (const [topic, { payload }] of this.retained)
        if (matches(filter, topic))
          this.deliver(topic, payload, true, identifier === undefined ? [] : [identifier])
    }
    this.send({ cmd: 'suback', messageId, granted })
  }

  private deliver(topic: string, payload: Buffer, retain: boolean, identifiers: readonly number[]): void {
    const [first] = identifiers
    const subscriptionIdentifier = identifiers.length > 1 ? [...identifiers] : first
    const properties =
      subscriptionIdentifier === undefined || this.protocolVersion === 4
        ? {}
        : { properties: { subscriptionIdentifier } }
    const packet: IPublishPacket = { cmd: 'publish', topic, payload, qos: 0, dup: false, retain }
    this.send({ ...packet, ...properties })
  }

  private send(packet: Packet): void {
    this.link?.write(generate(packet, { protocolVersion: this.protocolVersion }))
  }
}

const REFUSED = 0x87

const matches = (filter: string, topic: string): boolean =>
  matchesTopicFilter(parseTopicFilter(filter), topic)
