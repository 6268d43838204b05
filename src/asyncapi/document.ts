import type { JsonSchema } from './json-schemas.js'

/** A Reference Object. */
export interface AsyncApiReference {
  readonly $ref: string
}

/** A Message Object. It has no payload if the handler or contract has no schema. */
export interface AsyncApiMessage {
  readonly title?: string
  readonly contentType?: string
  readonly payload?: AsyncApiReference
  readonly correlationId?: { readonly location: string }
  readonly bindings?: { readonly mqtt: Readonly<Record<string, unknown>> }
}

/** A Parameter Object: a wildcard of the topic filter. */
export interface AsyncApiParameter {
  readonly description: string
}

/** A Channel Object: the topics of one pattern on one connection. */
export interface AsyncApiChannel {
  /** Topic with `{parameters}`. Null for the topics that a requester chooses for its responses. */
  readonly address: string | null
  readonly description?: string
  readonly servers?: readonly AsyncApiReference[]
  readonly parameters?: Readonly<Record<string, AsyncApiParameter>>
  readonly messages: Readonly<Record<string, AsyncApiMessage>>
  /** The Topic Filter in MQTT syntax. */
  readonly 'x-mqtt-topic-filter'?: string
}

/** An Operation Object: a handler, or a contract that the application publishes. */
export interface AsyncApiOperation {
  readonly action: 'receive' | 'send'
  readonly title?: string
  readonly description?: string
  readonly channel: AsyncApiReference
  readonly messages: readonly AsyncApiReference[]
  readonly bindings: { readonly mqtt: Readonly<Record<string, unknown>> }
  readonly reply?: {
    readonly address: { readonly location: string; readonly description: string }
    readonly channel: AsyncApiReference
    readonly messages: readonly AsyncApiReference[]
  }
  /** Share Name of the subscription (MQTT 5, 4.8.2). */
  readonly 'x-mqtt-shared-group'?: string
}

/** A Server Object: one broker address. It has no credentials. */
export interface AsyncApiServer {
  readonly host: string
  readonly pathname?: string
  readonly protocol: string
  readonly protocolVersion?: string
  readonly description?: string
  readonly security?: readonly AsyncApiReference[]
  readonly bindings?: { readonly mqtt: Readonly<Record<string, unknown>> }
}

/** An AsyncAPI 3.1 document, as `createAsyncApiDocument()` makes it. */
export interface AsyncApiDocument {
  readonly asyncapi: '3.1.0'
  readonly info: { readonly title: string; readonly version: string; readonly description?: string }
  readonly servers: Readonly<Record<string, AsyncApiServer>>
  readonly channels: Readonly<Record<string, AsyncApiChannel>>
  readonly operations: Readonly<Record<string, AsyncApiOperation>>
  readonly components: {
    readonly schemas: Readonly<Record<string, JsonSchema>>
    readonly securitySchemes: Readonly<
      Record<string, { readonly type: string; readonly description: string }>
    >
  }
}

const MAX_NAME = 120

/** Names that are unique within one object of a document, and valid as keys of its components. */
export class Names {
  private readonly used = new Set<string>()
  private readonly next = new Map<string, number>()

  /** Returns a name that resembles `text`. None is `__proto__`, which tools would not treat as a key. */
  unique(text: string, fallback: string): string {
    const plain = text
      .replaceAll(/[^\w-]+/g, '.')
      .replaceAll(/^[._]+|\.+$/g, '')
      .slice(0, MAX_NAME)
    const base = plain === '' ? fallback : plain
    let number = this.next.get(base) ?? 1
    let name = number === 1 ? base : `${base}-${number}`
    while (this.used.has(name)) {
      number += 1
      name = `${base}-${number}`
    }
    this.next.set(base, number + 1)
    this.used.add(name)
    return name
  }
}

/** Returns a reference, with the key escaped as in a JSON Pointer. */
export function reference(...path: readonly string[]): AsyncApiReference {
  return { $ref: `#/${path.map(key => key.replaceAll('~', '~0').replaceAll('/', '~1')).join('/')}` }
}

/** Returns a document as YAML. Strings are in double quotes, so that no value changes its type. */
export function toYaml(value: unknown): string {
  return yamlLines(value).join('\n').concat('\n')
}

function yamlLines(value: unknown): string[] {
  if (Array.isArray(value)) {
    if (value.length === 0) return ['[]']
    return value.flatMap(item => {
      const [first = '', ...rest] = yamlLines(item)
      return [`- ${first}`, ...rest.map(line => `  ${line}`)]
    })
  }
  if (typeof value !== 'object' || value === null) return [JSON.stringify(value) ?? 'null']
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined)
  if (entries.length === 0) return ['{}']
  return entries.flatMap(([key, inner]) => {
    const lines = yamlLines(inner)
    const name = /^[A-Za-z][\w-]*$/.test(key) && !YAML_WORDS.test(key) ? key : JSON.stringify(key)
    const isInline = typeof inner !== 'object' || inner === null || Object.keys(inner).length === 0
    return isInline ? [`${name}: ${lines[0]}`] : [`${name}:`, ...lines.map(line => `  ${line}`)]
  })
}

/** Words that YAML 1.1 does not read as strings. */
const YAML_WORDS = /^(?:y|yes|n|no|on|off|true|false|null)$/i
