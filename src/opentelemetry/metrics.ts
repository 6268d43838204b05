import type { Attributes, Counter, Histogram, Meter, ObservableResult } from '@opentelemetry/api'
import {
  type ConnectionChange,
  type DeliveryEvent,
  type LinkMeasured,
  type ObservedClient,
  openClients,
  type PublishEvent,
  type RequestEvent,
  type StoreEvent,
} from '../client/events.js'
import type { StoreStats } from '../client/report.js'
import type { PublishOutcome } from '../core/outbound/publish-outcome.js'
import {
  clientAttributes,
  errorType,
  failureOf,
  type ResolvedInstrumentationOptions,
  type TopicPatterns,
} from './attributes.js'
import { listen } from './listening.js'

/** Buckets in seconds, as the semantic conventions recommend. */
const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
const MS = 1_000

const OPERATIONS = {
  message: 'publish',
  request: 'request',
  response: 'respond',
  'dead-letter': 'dead-letter',
  signal: 'signal',
  presence: 'presence',
} as const

/** A stored message is sent later, and counted then. */
const UNSENT: ReadonlySet<PublishOutcome['status']> = new Set(['dropped', 'stored'])

/** Records metrics of the clients of this process. */
export class Metrics {
  private readonly begun = new WeakMap<object, number>()
  private readonly operationDuration: Histogram
  private readonly processDuration: Histogram
  private readonly linkAge: Histogram
  private readonly sent: Counter
  private readonly consumed: Counter
  private readonly publishes: Counter
  private readonly deliveries: Counter
  private readonly redeliveries: Counter
  private readonly losses: Counter
  private readonly storeOutcomes: Counter

  constructor(
    private readonly meter: Meter,
    private readonly options: ResolvedInstrumentationOptions,
    private readonly patterns: TopicPatterns,
  ) {
    const seconds = { unit: 's', advice: { explicitBucketBoundaries: SECONDS } }
    const messages = { unit: '{message}' }
    this.operationDuration = meter.createHistogram('messaging.client.operation.duration', seconds)
    this.processDuration = meter.createHistogram('messaging.process.duration', seconds)
    this.linkAge = meter.createHistogram('mqtt.client.link.age', seconds)
    this.sent = meter.createCounter('messaging.client.sent.messages', messages)
    this.consumed = meter.createCounter('messaging.client.consumed.messages', messages)
    this.publishes = meter.createCounter('mqtt.client.publishes', messages)
    this.deliveries = meter.createCounter('mqtt.client.deliveries', messages)
    this.redeliveries = meter.createCounter('mqtt.client.redeliveries', messages)
    this.storeOutcomes = meter.createCounter('mqtt.client.store.outcomes', messages)
    this.losses = meter.createCounter('mqtt.client.connection.losses', { unit: '{connection}' })
  }

  /** @returns a function that ends the recording */
  start(): () => void {
    const leaves = [
      listen('connection', event => this.connection(event)),
      listen('publish', event => this.publish(event)),
      listen('request', event => this.request(event)),
      listen('delivery', event => this.delivery(event)),
      listen('link', event => this.link(event)),
      listen('store', event => this.store(event)),
      ...this.observe(),
    ]
    return () => {
      for (const leave of leaves) leave()
    }
  }

  private connection({ client, state, before }: ConnectionChange): void {
    if (before.status !== 'connected' || state.status === 'closing') return
    this.losses.add(1, clientAttributes(client, this.options))
  }

  private publish(event: PublishEvent): void {
    const { client, key, topic, purpose } = event
    if (event.type === 'start') return void this.begun.set(key, performance.now())
    const { outcome } = event
    const pattern = purpose === 'dead-letter' ? topic : this.patterns.of(topic)
    const failure = outcome === undefined ? errorType(event.error) : failureOf(outcome)
    const attributes = {
      ...this.attributes(client, OPERATIONS[purpose], 'send', pattern),
      ...(failure === undefined ? {} : { 'error.type': failure }),
    }
    if (purpose !== 'request') this.operationDuration.record(this.secondsOf(key), attributes)
    if (outcome !== undefined && !UNSENT.has(outcome.status)) this.sent.add(1, attributes)
    this.publishes.add(1, {
      ...clientAttributes(client, this.options),
      'mqtt.outcome': outcome?.status ?? 'rejected',
      ...(failure === undefined ? {} : { 'mqtt.reason': failure }),
    })
  }

  private request(event: RequestEvent): void {
    const { client, key, topic } = event
    if (event.type === 'start') return void this.begun.set(key, performance.now())
    this.operationDuration.record(this.secondsOf(key), {
      ...this.attributes(client, 'request', 'send', this.patterns.of(topic)),
      ...(event.error === undefined ? {} : { 'error.type': errorType(event.error) }),
    })
  }

  private delivery(event: DeliveryEvent): void {
    const { client, key, kind, pattern, dup } = event
    const attributes = this.attributes(client, 'process', 'process', pattern)
    if (event.type === 'start') {
      this.begun.set(key, performance.now())
      if (kind !== 'batch') this.consumed.add(1, attributes)
      if (kind !== 'batch' && dup) this.redeliveries.add(1, attributes)
    }
    if (event.type !== 'end') return
    if (kind !== 'batch') this.deliveries.add(1, { ...attributes, 'mqtt.outcome': event.outcome })
    if (kind === 'in-batch') return
    const failure = event.error === undefined ? event.outcome : errorType(event.error)
    this.processDuration.record(this.secondsOf(key), {
      ...attributes,
      ...(event.outcome === 'handled' || event.outcome === 'duplicate' ? {} : { 'error.type': failure }),
    })
  }

  private link({ client, ageMs }: LinkMeasured): void {
    this.linkAge.record(ageMs / MS, clientAttributes(client, this.options))
  }

  private store(event: StoreEvent): void {
    if (event.type !== 'settled') return
    const { client, settlement } = event
    const { topic, outcome } = settlement
    const common = clientAttributes(client, this.options)
    this.storeOutcomes.add(1, { ...common, 'mqtt.outcome': outcome.status })
    if (outcome.status !== 'delivered') return
    this.sent.add(1, this.attributes(client, 'publish', 'send', this.patterns.of(topic)))
  }

  private observe(): (() => void)[] {
    const ofStore = (name: string, unit: string, read: (store: StoreStats) => number) =>
      this.gauge(`mqtt.client.store.${name}`, unit, client => {
        const { store } = client.stats()
        return store === undefined ? [] : [[read(store)]]
      })
    return [
      ofStore('messages', '{message}', ({ messages }) => messages),
      ofStore('size', 'By', ({ bytes }) => bytes),
      this.gauge(
        'mqtt.client.store.oldest',
        's',
        client => [[(client.stats().store?.oldestMs ?? 0) / MS]],
        Math.max,
      ),
      ofStore('failures', '{call}', ({ failedWrites }) => failedWrites),
      this.gauge('mqtt.client.link.rate', 'By/s', client => [[client.stats().outbound.bytesPerSecond ?? 0]]),
      this.gauge('mqtt.client.in_flight', '{message}', client => [[client.stats().outbound.inFlight]]),
      this.gauge('mqtt.client.queued', '{message}', client => {
        const { inbound, outbound } = client.stats()
        return [
          [outbound.queued, { 'mqtt.direction': 'out' }],
          [inbound.waiting, { 'mqtt.direction': 'in' }],
        ]
      }),
      this.gauge('mqtt.client.handler.slots', '{slot}', ({ handlerSlots: { inUse, limit } }) => [
        [inUse, { 'mqtt.slot.state': 'used' }],
        [limit - inUse, { 'mqtt.slot.state': 'free' }],
      ]),
      this.gauge('mqtt.client.connections', '{connection}', ({ state }) => [
        [1, { 'mqtt.connection.state': state.status }],
      ]),
    ]
  }

  /** Observes the sum, or another combination, of the clients with the same attributes, because one observation would replace the other. */
  private gauge(
    name: string,
    unit: string,
    read: (client: ObservedClient) => readonly (readonly [value: number, attributes?: Attributes])[],
    combine?: (one: number, other: number) => number,
  ): () => void {
    const instrument =
      combine === undefined
        ? this.meter.createObservableUpDownCounter(name, { unit })
        : this.meter.createObservableGauge(name, { unit })
    const take = (result: ObservableResult): void => {
      const sums = new Map<string, { value: number; readonly attributes: Attributes }>()
      for (const client of openClients) {
        for (const [value, own] of read(client)) {
          const attributes = { ...clientAttributes(client, this.options), ...own }
          const key = JSON.stringify(attributes)
          const sum = sums.get(key) ?? { value: 0, attributes }
          sum.value = combine === undefined ? sum.value + value : combine(sum.value, value)
          sums.set(key, sum)
        }
      }
      for (const { value, attributes } of sums.values()) result.observe(value, attributes)
    }
    instrument.addCallback(take)
    return () => instrument.removeCallback(take)
  }

  private attributes(
    client: ObservedClient,
    name: string,
    type: 'send' | 'process',
    pattern: string | undefined,
  ): Attributes {
    return {
      ...clientAttributes(client, this.options),
      'messaging.operation.name': name,
      'messaging.operation.type': type,
      ...(pattern === undefined ? {} : { 'messaging.destination.template': pattern }),
    }
  }

  private secondsOf(key: object): number {
    const begunMs = this.begun.get(key)
    return begunMs === undefined ? 0 : (performance.now() - begunMs) / MS
  }
}
