import { type INestApplicationContext, Logger } from '@nestjs/common'
import { ModulesContainer } from '@nestjs/core'
import { MqttError } from '../core/errors.js'
import { connectionsOf } from '../mqtt.connection-module.js'
import { decorationsOf } from '../mqtt.decorators.js'
import { findPatternHandlers } from '../mqtt.handlers.js'
import { mqttTransportId } from '../mqtt.service.js'
import { resolveCodec } from '../options/codec.js'
import { resolveHandlerOptions } from '../options/handler-options.js'
import type { ResolvedOptions } from '../options/resolved-options.js'
import type { TopicContract } from '../options/topic-contract.js'
import { assertRoutable } from '../transport/mqtt.handler-checks.js'
import { PreviewTransport } from '../transport/mqtt.transport.js'
import type { AsyncApiDocument } from './document.js'
import { DocumentBuilder, type OperationSource } from './document-builder.js'
import type { ToJsonSchema } from './json-schemas.js'
import { type AsyncApiServerOptions, serversOf } from './servers.js'
import { describeTopic } from './topic-address.js'

/** Options of {@link createAsyncApiDocument}. */
export interface AsyncApiOptions {
  /** Title of the application. */
  readonly title: string
  /** Version of the interface, such as `1.0.0`. */
  readonly version: string
  /** What the application does, in Markdown. @default none */
  readonly description?: string
  /**
   * The contracts of topics on which the application publishes, or sends requests. A contract with a `response` is a request.
   * A contract of another connection than the one without a name is `{ contract, connection }`.
   * @default none
   */
  readonly sends?: readonly (TopicContract | AsyncApiSend)[]
  /**
   * Addresses of the brokers for the readers of the document, in place of those in the options of the connections.
   * @default the addresses in the options of each connection, without credentials
   */
  readonly servers?: readonly AsyncApiServerOptions[]
  /** Converts schemas to JSON Schema, in place of the built-in converters if it returns one. @default none */
  readonly toJsonSchema?: ToJsonSchema
}

/** A contract on which the application publishes or sends requests, on one of several connections. */
export interface AsyncApiSend {
  readonly contract: TopicContract
  readonly connection: string
}

type Connection = ReturnType<typeof connectionsOf>[number]

/**
 * Makes an AsyncAPI 3.1 document of the MQTT handlers of an application, on all of its connections, and of the contracts in
 * `sends`. It needs no connection: the application may be in preview mode (`preview: true`), where options from `forRootAsync`
 * are not known. A payload without a schema is left out; a schema without an equivalent in JSON Schema is left out with a
 * warning in the log.
 * @throws MqttError `INVALID_OPTION` if the application has no MQTT connection, or if the package that converts a schema to
 * JSON Schema is not installed
 */
export async function createAsyncApiDocument(
  app: INestApplicationContext,
  options: AsyncApiOptions,
): Promise<AsyncApiDocument> {
  const { title, version, description, sends = [], servers = [], toJsonSchema } = options
  const info = { title, version, ...(description === undefined ? {} : { description }) }
  const builder = new DocumentBuilder(info, toJsonSchema)
  const modules = app.get(ModulesContainer, { strict: false })
  const connections = connectionsOf(modules)
  if (connections.length === 0)
    throw invalid(
      'the application has no MQTT connection; add MqttModule.forRoot({ url }) to its root module',
    )
  for (const { connection } of servers) assertConnection(connections, connection)
  for (const connection of connections) {
    const own = servers.filter(server => server.connection === connection.name)
    const list = serversOf(connection.name, connection.options, own, builder.serverNames)
    builder.addServers(connection.name, list)
    if (list.length === 0) builder.warnings.push(withoutServer(connection))
  }
  for (const connection of connections)
    for (const source of receivesOf(connection, modules)) await builder.addOperation(source)
  for (const entry of sends) {
    const { contract, connection } = 'contract' in entry ? entry : { contract: entry, connection: undefined }
    const found = assertConnection(connections, connection)
    await builder.addOperation(sendOf(found, contract))
  }
  const logger = new Logger('AsyncApi')
  for (const warning of builder.warnings) logger.warn(warning)
  return builder.build()
}

function assertConnection(connections: readonly Connection[], name: string | undefined): Connection {
  const found = connections.find(connection => connection.name === name)
  if (found !== undefined) return found
  const known = connections.map(connection =>
    connection.name === undefined ? 'the connection without a name' : `"${connection.name}"`,
  )
  throw invalid(
    `the application has no connection ${name === undefined ? 'without a name' : `"${name}"`}; use one of: ${known.join(', ')}`,
  )
}

function withoutServer({ name, options }: Connection): string {
  const which = name === undefined ? 'the connection without a name' : `the connection "${name}"`
  const why =
    options === undefined
      ? 'its options come from a factory, which does not run in preview mode, or are not valid'
      : 'it uses createStream'
  const example = name === undefined ? '{ url: "mqtts://…" }' : `{ connection: "${name}", url: "mqtts://…" }`
  return `the address of ${which} is not known, because ${why}; set it with servers: [${example}]`
}

function receivesOf(connection: Connection, modules: ModulesContainer): OperationSource[] {
  const routes = new Routes(mqttTransportId(connection.name))
  // The handler of unmatched messages has no topic of its own.
  const handlers = findPatternHandlers(modules, mqttTransportId(connection.name)).filter(
    ({ isForUnmatched }) => !isForUnmatched,
  )
  return handlers.flatMap(({ name, patterns, kind, extras, method }) => {
    const isEvent = kind === 'events'
    return patterns.map(pattern => {
      const isLiteral = typeof pattern !== 'string'
      const route = routes.routeOf(pattern)
      const contract = decorationsOf(method).find(noted => noted.contract?.pattern === pattern)?.contract
      return receiveOf(connection, { name, route, isLiteral, isEvent, extras, contract })
    })
  })
}

/** Converts patterns as the transport does. */
class Routes extends PreviewTransport {
  /** Returns the topic of a pattern: Nest converts an object or a number to JSON. */
  routeOf(pattern: unknown): string {
    assertRoutable(pattern, 'INVALID_TOPIC_FILTER')
    return this.normalizePattern(pattern)
  }
}

interface Handler {
  readonly name: string
  readonly route: string
  readonly isLiteral: boolean
  readonly isEvent: boolean
  readonly extras: unknown
  readonly contract: TopicContract | undefined
}

function receiveOf(
  { name: connection, options }: Connection,
  { name, route, isLiteral, isEvent, extras, contract }: Handler,
): OperationSource {
  const handler = resolveHandlerOptions(route, extras, isEvent ? 'events' : 'requests')
  const { qos, codec, sharedGroup, schema, response } = handler
  return {
    name,
    action: 'receive',
    topic: describeTopic(route, options?.variables ?? {}, isLiteral),
    connection,
    description: contract?.description,
    contentType: contract?.policy.properties?.contentType ?? contentTypeOf(codec, options),
    schema,
    bindings: { qos, ...bindingsOf(contract) },
    messageBindings: messageBindingsOf(contract),
    sharedGroup: sharedGroup ?? options?.sharedGroup,
    reply: isEvent ? undefined : { schema: response },
  }
}

function sendOf({ name: connection, options }: Connection, contract: TopicContract): OperationSource {
  const { pattern, schema, response, description, policy } = contract
  const { qos = 0, codec, properties } = policy
  return {
    name: `the contract of "${pattern}"`,
    action: 'send',
    topic: describeTopic(pattern, {}),
    connection,
    description,
    contentType: properties?.contentType ?? contentTypeOf(codec, options),
    schema,
    bindings: { qos, retain: false, ...bindingsOf(contract) },
    messageBindings: messageBindingsOf(contract),
    sharedGroup: undefined,
    reply: response === undefined ? undefined : { schema: response },
  }
}

/** What the contract says about every message of the topic. */
function bindingsOf(contract: TopicContract | undefined): Readonly<Record<string, unknown>> {
  const { retain, properties } = contract?.policy ?? {}
  const seconds = properties?.messageExpiryInterval
  return {
    ...(retain === undefined ? {} : { retain }),
    ...(seconds === undefined ? {} : { messageExpiryInterval: seconds }),
  }
}

function messageBindingsOf(contract: TopicContract | undefined): Readonly<Record<string, unknown>> {
  const isUtf8 = contract?.policy.properties?.payloadFormatIndicator
  return isUtf8 === undefined ? {} : { payloadFormatIndicator: Number(isUtf8) }
}

function contentTypeOf(codec: OperationCodec, options: ResolvedOptions | undefined): string | undefined {
  const used = codec ?? options?.codec
  return used === undefined ? undefined : resolveCodec(used).contentType
}

type OperationCodec = Parameters<typeof resolveCodec>[0] | undefined

function invalid(problem: string): MqttError {
  return new MqttError('INVALID_OPTION', `createAsyncApiDocument(): ${problem}`)
}
