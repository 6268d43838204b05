import type { Attributes } from '@opentelemetry/api'
import type { ObservedClient } from '../client/events.js'
import { isMqttError } from '../core/errors.js'
import type { PublishOutcome } from '../core/outbound/publish-outcome.js'
import { parseTopicTemplate } from '../core/topic/topic-filter.js'
import { Routes } from '../core/topic/topic-trie.js'
import { instrumentationSchema, parseOptions } from '../options/schema.js'

/** Options of `MqttInstrumentation`. */
export interface MqttInstrumentationOptions {
  /** Whether it starts with the constructor, and not with `enable()`. @default true */
  readonly enabled?: boolean
  /** Record spans, and pass the trace context on. @default true */
  readonly traces?: boolean
  /** Record metrics. @default true */
  readonly metrics?: boolean
  /**
   * Patterns of the topics that you publish to, such as `trucks/+truckId/temperature`, or contracts. The spans and metrics of a
   * publish or a request have the first pattern that its topic matches, because the topics themselves may be too many.
   * Without a match they have none. @default []
   */
  readonly topics?: readonly (string | { readonly pattern: string })[]
  /** Add the topic of the message to each span (`messaging.destination.name`). Metrics never have it. @default false */
  readonly recordTopic?: boolean
  /** Add the Client Identifier to each span and metric (`messaging.client.id`). @default false */
  readonly recordClientId?: boolean
  /** Add the messages of errors to spans. They may contain values of payloads. @default false */
  readonly recordErrorMessages?: boolean
  /**
   * The span of a handler belongs to the trace of the publisher. With `false` it starts a trace, with a link to the span of the
   * publisher. Batches and retained messages always do. @default true
   */
  readonly continueTraces?: boolean
}

/** A value of `MqttInstrumentationOptions` for each option. */
export type ResolvedInstrumentationOptions = Required<MqttInstrumentationOptions>

/** @throws MqttError `INVALID_OPTION` */
export const resolveOptions = (options: MqttInstrumentationOptions): ResolvedInstrumentationOptions =>
  parseOptions('MqttInstrumentation options', instrumentationSchema, options)

/** Number of topics whose pattern is remembered. */
const MAX_KNOWN_TOPICS = 1_000

/** Finds the pattern of a topic. */
export class TopicPatterns {
  private readonly routes = new Routes<string>()
  private readonly known = new Map<string, string | undefined>()

  /** @throws MqttError `INVALID_TOPIC_FILTER` */
  constructor(topics: ResolvedInstrumentationOptions['topics']) {
    for (const topic of topics) {
      const pattern = typeof topic === 'string' ? topic : topic.pattern
      this.routes.add(parseTopicTemplate(pattern).topicFilter, pattern)
    }
  }

  of(topic: string): string | undefined {
    if (this.known.has(topic)) return this.known.get(topic)
    const [pattern] = this.routes.select(topic, undefined)
    if (this.known.size >= MAX_KNOWN_TOPICS) this.known.clear()
    this.known.set(topic, pattern)
    return pattern
  }
}

const servers = new WeakMap<ObservedClient, { readonly broker: string; readonly attributes: Attributes }>()

/** The attributes of all spans and metrics of a client. */
export function clientAttributes(client: ObservedClient, { recordClientId }: MqttInstrumentationOptions) {
  return {
    'messaging.system': 'mqtt',
    ...serverAttributes(client),
    ...(recordClientId ? { 'messaging.client.id': client.clientId } : {}),
  }
}

function serverAttributes(client: ObservedClient): Attributes {
  const { broker } = client
  if (broker === undefined) return {}
  const known = servers.get(client)
  if (known?.broker === broker) return known.attributes
  const attributes = readServer(broker)
  servers.set(client, { broker, attributes })
  return attributes
}

function readServer(broker: string): Attributes {
  try {
    const { hostname, port } = new URL(broker)
    return { 'server.address': hostname, ...(port === '' ? {} : { 'server.port': Number(port) }) }
  } catch {
    return {}
  }
}

/** The attribute `error.type`: the code of an error of this package, or the name of the class. Never its message. */
export function errorType(error: unknown): string {
  if (isMqttError(error)) return error.code
  return error instanceof Error ? error.constructor.name : '_OTHER'
}

/** Why a publish has failed; undefined if it has not. */
export function failureOf(outcome: PublishOutcome): string | undefined {
  if (outcome.status === 'dropped') return outcome.reason
  if (outcome.status === 'refused') return `0x${outcome.reasonCode.toString(16)}`
  return outcome.status === 'lost' ? 'lost' : undefined
}
