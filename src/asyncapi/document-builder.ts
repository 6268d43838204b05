import type { StandardSchema } from '../options/codec.js'
import {
  type AsyncApiChannel,
  type AsyncApiDocument,
  type AsyncApiMessage,
  type AsyncApiOperation,
  type AsyncApiReference,
  type AsyncApiServer,
  Names,
  reference,
} from './document.js'
import { type JsonSchema, jsonSchemaOf, NotRepresentable, placed, type ToJsonSchema } from './json-schemas.js'
import { SECURITY_SCHEMES } from './servers.js'
import type { TopicDescription } from './topic-address.js'

/** A handler or a contract. */
export interface OperationSource {
  /** Name for the operation and in errors, such as `Class.method`. */
  readonly name: string
  readonly action: 'receive' | 'send'
  readonly topic: TopicDescription
  readonly connection: string | undefined
  readonly description: string | undefined
  readonly contentType: string | undefined
  readonly schema: StandardSchema | undefined
  readonly bindings: Readonly<Record<string, unknown>>
  readonly messageBindings: Readonly<Record<string, unknown>>
  readonly sharedGroup: string | undefined
  /** Undefined for an event. */
  readonly reply: { readonly schema: StandardSchema | undefined } | undefined
}

interface BuiltChannel {
  readonly name: string
  readonly channel: Omit<AsyncApiChannel, 'messages'>
  readonly messages: Map<string, AsyncApiMessage>
  /** The name of each message, by its content. */
  readonly known: Map<string, string>
  readonly names: Names
}

const BINDING_VERSION = '0.2.0'
const REPLY_ADDRESS = {
  location: '$message.header#/responseTopic',
  description: 'Response Topic of the request (MQTT 5, 3.3.2.3.5).',
} as const
const CORRELATION = { location: '$message.header#/correlationData' } as const
const CORRELATION_BINDING = {
  correlationData: { type: 'string', description: 'Any bytes. The response has the same Correlation Data.' },
} as const

/** Collects the parts of a document. */
export class DocumentBuilder {
  readonly warnings: string[] = []
  readonly serverNames = new Names()
  private readonly servers = new Map<string, AsyncApiServer>()
  private readonly serversOfConnection = new Map<string | undefined, readonly AsyncApiReference[]>()
  private readonly channels = new Map<string, BuiltChannel>()
  private readonly channelNames = new Names()
  private readonly operations = new Map<string, AsyncApiOperation>()
  private readonly operationNames = new Names()
  private readonly schemas = new Map<string, JsonSchema>()
  private readonly schemaNames = new Names()
  private readonly placedSchemas = new Map<StandardSchema, string | undefined>()

  constructor(
    private readonly info: AsyncApiDocument['info'],
    private readonly toJsonSchema: ToJsonSchema | undefined,
  ) {}

  addServers(connection: string | undefined, servers: readonly [string, AsyncApiServer][]): void {
    for (const [name, server] of servers) this.servers.set(name, server)
    this.serversOfConnection.set(
      connection,
      servers.map(([name]) => reference('servers', name)),
    )
  }

  /** @throws MqttError `INVALID_OPTION` if a schema cannot be converted because of a missing package */
  async addOperation(source: OperationSource): Promise<void> {
    const { action, description, bindings, sharedGroup, reply, topic } = source
    const built = this.channelOf(source)
    const kind = reply === undefined ? 'message' : 'request'
    const payload = await this.payloadOf(source.name, source.schema, `${built.name}.${kind}`)
    const hasReply = reply !== undefined
    const messageBindings = { ...(hasReply ? CORRELATION_BINDING : {}), ...source.messageBindings }
    const message = this.addMessage(built, kind, {
      ...titleOf(this.schemas.get(payload ?? '')),
      ...(source.contentType === undefined ? {} : { contentType: source.contentType }),
      ...(payload === undefined ? {} : { payload: reference('components', 'schemas', payload) }),
      ...(hasReply ? { correlationId: CORRELATION } : {}),
      ...(Object.keys(messageBindings).length === 0
        ? {}
        : { bindings: { mqtt: { ...messageBindings, bindingVersion: BINDING_VERSION } } }),
    })
    const isHandler = action === 'receive'
    const name = this.operationNames.unique(isHandler ? source.name : `send.${built.name}`, 'operation')
    const group = sharedGroup ?? topic.sharedGroup
    this.operations.set(name, {
      action,
      ...(isHandler ? { title: source.name } : {}),
      ...(description === undefined ? {} : { description }),
      channel: reference('channels', built.name),
      messages: [message],
      bindings: { mqtt: { ...bindings, bindingVersion: BINDING_VERSION } },
      ...(reply === undefined ? {} : { reply: await this.replyOf(source, name, reply.schema) }),
      ...(group === undefined ? {} : { 'x-mqtt-shared-group': group }),
    })
  }

  build(): AsyncApiDocument {
    const servers = Object.fromEntries(this.servers)
    const used = new Set(
      Object.values(servers).flatMap(({ security = [] }) => security.map(({ $ref }) => $ref)),
    )
    return {
      asyncapi: '3.1.0',
      info: this.info,
      servers,
      channels: Object.fromEntries(
        [...this.channels.values()].map(({ name, channel, messages }) => [
          name,
          { ...channel, messages: Object.fromEntries(messages) },
        ]),
      ),
      operations: Object.fromEntries(this.operations),
      components: {
        schemas: Object.fromEntries(this.schemas),
        securitySchemes: Object.fromEntries(
          Object.entries(SECURITY_SCHEMES).filter(([name]) =>
            used.has(reference('components', 'securitySchemes', name).$ref),
          ),
        ),
      },
    }
  }

  private channelOf({ connection, topic, description }: OperationSource): BuiltChannel {
    const { address, parameters, filter } = topic
    const key = JSON.stringify([connection ?? null, address])
    const known = this.channels.get(key)
    if (known !== undefined) return known
    return this.addChannel(key, address.replaceAll(/%[0-9A-F]{2}/g, '.'), connection, {
      address,
      ...(description === undefined ? {} : { description }),
      ...(Object.keys(parameters).length === 0 ? {} : { parameters }),
      'x-mqtt-topic-filter': filter,
    })
  }

  private addChannel(
    key: string,
    name: string,
    connection: string | undefined,
    channel: BuiltChannel['channel'],
  ): BuiltChannel {
    const servers = this.serversOfConnection.get(connection) ?? []
    const built: BuiltChannel = {
      name: this.channelNames.unique(name, 'channel'),
      channel: { ...channel, ...(servers.length === 0 ? {} : { servers }) },
      messages: new Map(),
      known: new Map(),
      names: new Names(),
    }
    this.channels.set(key, built)
    return built
  }

  /** Handlers of one channel share a message if its content is the same. */
  private addMessage(
    { name, messages, known, names }: BuiltChannel,
    kind: string,
    message: AsyncApiMessage,
  ): AsyncApiReference {
    const content = JSON.stringify(message)
    const key = known.get(content) ?? names.unique(kind, kind)
    known.set(content, key)
    messages.set(key, message)
    return reference('channels', name, 'messages', key)
  }

  private async replyOf(
    { connection, contentType, name }: OperationSource,
    operation: string,
    schema: StandardSchema | undefined,
  ): Promise<NonNullable<AsyncApiOperation['reply']>> {
    const channel = this.addChannel(`reply of ${operation}`, `${operation}.reply`, connection, {
      address: null,
    })
    const payload = await this.payloadOf(`the response of ${name}`, schema, `${operation}.response`)
    const message = this.addMessage(channel, 'response', {
      ...titleOf(this.schemas.get(payload ?? '')),
      ...(contentType === undefined ? {} : { contentType }),
      ...(payload === undefined ? {} : { payload: reference('components', 'schemas', payload) }),
      correlationId: CORRELATION,
    })
    return { address: REPLY_ADDRESS, channel: reference('channels', channel.name), messages: [message] }
  }

  /** Returns the name of the schema in the document; undefined if there is none. */
  private async payloadOf(
    owner: string,
    schema: StandardSchema | undefined,
    name: string,
  ): Promise<string | undefined> {
    if (schema === undefined) return undefined
    if (this.placedSchemas.has(schema)) return this.placedSchemas.get(schema)
    const place = await this.place(owner, schema, name)
    this.placedSchemas.set(schema, place)
    return place
  }

  private async place(owner: string, schema: StandardSchema, name: string): Promise<string | undefined> {
    try {
      const converted = await jsonSchemaOf(owner, schema, this.toJsonSchema)
      if (converted === undefined) return undefined
      const key = this.schemaNames.unique(name, 'schema')
      this.schemas.set(key, placed(converted, reference('components', 'schemas', key).$ref))
      return key
    } catch (error) {
      if (!(error instanceof NotRepresentable)) throw error
      this.warnings.push(
        `${owner}: the document contains no schema for this payload: ${error.message}; use a schema that JSON Schema can express, or convert it with the option "toJsonSchema"`,
      )
      return undefined
    }
  }
}

function titleOf(schema: JsonSchema | undefined): { title?: string } {
  const title = schema?.['title']
  return typeof title === 'string' ? { title } : {}
}
