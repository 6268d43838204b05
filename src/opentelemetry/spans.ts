import {
  type Attributes,
  type Context,
  context,
  type Link,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type TextMapGetter,
  type TimeInput,
  type Tracer,
  trace,
} from '@opentelemetry/api'
import type {
  DeliveryEvent,
  ObservedClient,
  PublishEvent,
  PublishPurpose,
  RequestEvent,
  StreamEvent,
} from '../client/events.js'
import type { PublishProperties } from '../core/protocol/packets.js'
import {
  clientAttributes,
  errorType,
  failureOf,
  type ResolvedInstrumentationOptions,
  type TopicPatterns,
} from './attributes.js'
import { listen } from './listening.js'

/** The most links that the SDK keeps by default. */
const MAX_LINKS = 128

/** A User Property may occur several times; then the first one counts. */
const USER_PROPERTIES: TextMapGetter<NonNullable<PublishProperties['userProperties']>> = {
  keys: Object.keys,
  get: (properties, name) => {
    const value = properties[name]
    return Array.isArray(value) ? value[0] : value
  },
}

/** Returns the context that the publisher of a message has sent in its User Properties. */
export function contextOf(properties: PublishProperties | undefined): Context {
  return propagation.extract(ROOT_CONTEXT, properties?.userProperties ?? {}, USER_PROPERTIES)
}

interface Operation {
  readonly name: 'publish' | 'dead-letter' | 'request' | 'process' | 'stream'
  readonly type?: 'send' | 'process'
  readonly kind: SpanKind
  readonly pattern: string | undefined
  readonly topic: string
}

/** Records spans of the clients of this process. */
export class Spans {
  private readonly open = new WeakMap<object, Span>()
  private readonly streams = new WeakMap<object, { readonly begun: TimeInput; readonly within: Context }>()

  constructor(
    private readonly tracer: Tracer,
    private readonly options: ResolvedInstrumentationOptions,
    private readonly patterns: TopicPatterns,
  ) {}

  /** @returns a function that ends the recording */
  start(): () => void {
    const leaves = [
      listen('publish', event => this.publish(event)),
      listen('request', event => this.request(event)),
      listen('delivery', event => this.delivery(event)),
      listen('stream', event => this.stream(event)),
    ]
    return () => {
      for (const leave of leaves) leave()
    }
  }

  private publish(event: PublishEvent): void {
    const { purpose, topic, qos, retain, bytes } = event
    // A request has a span of its own, and a response belongs to that of its handler.
    if (purpose !== 'message' && purpose !== 'dead-letter') return
    if (event.type === 'end') {
      if (event.outcome === undefined) return this.end(event.key, errorType(event.error), event.error)
      return this.end(event.key, failureOf(event.outcome))
    }
    const span = this.begin(event, this.publishOperation(purpose, topic), context.active(), {
      'messaging.message.body.size': bytes,
      'mqtt.qos': qos,
      ...(retain ? { 'mqtt.retain': true } : {}),
    })
    this.inject(event, span)
  }

  private publishOperation(purpose: PublishPurpose, topic: string): Operation {
    const isLetter = purpose === 'dead-letter'
    return {
      name: isLetter ? 'dead-letter' : 'publish',
      type: 'send',
      kind: SpanKind.PRODUCER,
      // The topics of dead letters are written in the code.
      pattern: isLetter ? topic : this.patterns.of(topic),
      topic,
    }
  }

  private request(event: RequestEvent): void {
    if (event.type === 'end') {
      const { error, responses } = event
      this.open.get(event.key)?.setAttribute('mqtt.responses', responses)
      return this.end(event.key, error === undefined ? undefined : errorType(error), error)
    }
    const { topic } = event
    const pattern = this.patterns.of(topic)
    const span = this.begin(
      event,
      { name: 'request', type: 'send', kind: SpanKind.CLIENT, pattern, topic },
      context.active(),
    )
    this.inject(event, span)
  }

  private delivery(event: DeliveryEvent): void {
    if (event.kind === 'in-batch') return
    if (event.type === 'start') return this.deliveryStarts(event)
    const span = this.open.get(event.key)
    if (event.type === 'attempt-failed') {
      span?.addEvent('attempt failed', {
        'mqtt.attempt': event.attempt,
        'error.type': errorType(event.error),
        ...this.messageOf(event.error),
      })
      return
    }
    span?.setAttribute('mqtt.outcome', event.outcome)
    const failure = event.error === undefined ? event.outcome : errorType(event.error)
    if (event.outcome === 'handled' || event.outcome === 'duplicate') this.end(event.key)
    else this.end(event.key, failure, event.error)
  }

  private deliveryStarts(event: Extract<DeliveryEvent, { type: 'start' }>): void {
    const { kind, pattern, topic, qos, retain, dup, bytes, batch } = event
    const links = batch === undefined ? [] : batch.slice(0, MAX_LINKS).flatMap(linkOf)
    let parent = batch === undefined ? contextOf(event.properties) : ROOT_CONTEXT
    // A retained message may be much older than its delivery.
    if (batch === undefined && (retain || !this.options.continueTraces)) {
      links.push(...linkOf(event))
      parent = trace.deleteSpan(parent)
    }
    const span = this.begin(
      event,
      {
        name: 'process',
        type: 'process',
        kind: kind === 'request' ? SpanKind.SERVER : SpanKind.CONSUMER,
        pattern,
        topic,
      },
      parent,
      batch === undefined
        ? {
            'messaging.message.body.size': bytes,
            'mqtt.qos': qos,
            ...(retain ? { 'mqtt.retain': true } : {}),
            ...(dup ? { 'mqtt.dup': true } : {}),
          }
        : { 'messaging.batch.message_count': batch.length },
      links,
    )
    const within = trace.setSpan(parent, span)
    event.wrap(work => context.with(within, work))
  }

  /** Every result behind an interceptor of Nest is an Observable. Only a stream of several values has a span. */
  private stream(event: StreamEvent): void {
    const { key, pattern, topic } = event
    if (event.type === 'start') {
      this.streams.set(key, { begun: Date.now(), within: context.active() })
      return
    }
    const begun = this.streams.get(key)
    if (begun === undefined || (event.values <= 1 && event.reason === 'finished')) return
    const operation = { name: 'stream', kind: SpanKind.INTERNAL, pattern, topic } as const
    const attributes = { 'mqtt.responses': event.values, 'mqtt.stream.end': event.reason }
    this.begin(event, operation, begun.within, attributes, [], begun.begun)
    const isWhole = event.reason === 'finished' || event.reason === 'cancelled'
    if (event.error !== undefined) this.end(key, errorType(event.error), event.error)
    else this.end(key, isWhole ? undefined : event.reason)
  }

  private begin(
    { client, key }: { readonly client: ObservedClient; readonly key: object },
    { name, type, kind, pattern, topic }: Operation,
    parent: Context,
    attributes: Attributes = {},
    links: Link[] = [],
    startTime: TimeInput = Date.now(),
  ): Span {
    const span = this.tracer.startSpan(
      pattern === undefined ? name : `${name} ${pattern}`,
      {
        kind,
        links,
        startTime,
        attributes: {
          ...clientAttributes(client, this.options),
          'messaging.operation.name': name,
          ...(type === undefined ? {} : { 'messaging.operation.type': type }),
          ...(pattern === undefined ? {} : { 'messaging.destination.template': pattern }),
          ...(this.options.recordTopic ? { 'messaging.destination.name': topic } : {}),
          ...attributes,
        },
      },
      parent,
    )
    this.open.set(key, span)
    return span
  }

  private end(key: object, failure?: string, error?: unknown): void {
    const span = this.open.get(key)
    if (span === undefined) return
    this.open.delete(key)
    if (failure !== undefined) {
      span.setAttributes({ 'error.type': failure })
      const message = this.messageOf(error)['exception.message']
      span.setStatus({ code: SpanStatusCode.ERROR, message: message ?? failure })
    }
    span.end()
  }

  private messageOf(error: unknown): { readonly 'exception.message'?: string } {
    if (!this.options.recordErrorMessages || !(error instanceof Error)) return {}
    return { 'exception.message': error.message }
  }

  /** MQTT 3.1.1 has no User Properties, and the payload belongs to the application. */
  private inject({ client, addUserProperties }: InjectableEvent, span: Span): void {
    if (client.protocolVersion !== 5) return
    const carrier: Record<string, string> = {}
    propagation.inject(trace.setSpan(context.active(), span), carrier)
    if (Object.keys(carrier).length > 0) addUserProperties(carrier)
  }
}

type InjectableEvent = Extract<PublishEvent | RequestEvent, { type: 'start' }>

function linkOf({ properties }: { readonly properties?: PublishProperties | undefined }): Link[] {
  const sent = trace.getSpanContext(contextOf(properties))
  return sent === undefined ? [] : [{ context: sent }]
}
