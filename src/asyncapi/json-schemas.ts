import { MqttError } from '../core/errors.js'
import type { StandardSchema } from '../options/codec.js'

/** A JSON Schema of draft 07, as in an AsyncAPI document. */
export type JsonSchema = Readonly<Record<string, unknown>>

/** Converts the schemas of a library that this package does not know. Returns undefined for those it does not convert either. */
export type ToJsonSchema = (schema: StandardSchema) => JsonSchema | undefined

/** A schema has no equivalent in JSON Schema, or only in part. */
export class NotRepresentable extends Error {}

/** AsyncAPI 3 describes payloads by a superset of this version. */
const TARGET = 'draft-07'
/** What `JSON.stringify` writes for a date. */
const DATE = { type: 'string', format: 'date-time' } as const

/**
 * Returns the JSON Schema of what a schema accepts, which is what is sent over MQTT. Undefined if it accepts every value.
 * @param owner what the schema belongs to, for errors
 * @throws MqttError `INVALID_OPTION` if no converter is known or installed
 * @throws NotRepresentable
 */
export async function jsonSchemaOf(
  owner: string,
  schema: StandardSchema,
  toJsonSchema?: ToJsonSchema,
): Promise<JsonSchema | undefined> {
  const own = toJsonSchema?.(schema)
  const converted = own ?? (await convert(owner, schema))
  const { $schema: _dialect, $id: _id, ...rest } = converted
  return Object.keys(rest).length === 0 ? undefined : rest
}

async function convert(owner: string, schema: StandardSchema): Promise<JsonSchema> {
  const { vendor } = schema['~standard']
  const valibot = vendor === 'valibot' ? await loadValibotConverter(owner) : undefined
  const converter = valibot ?? converterOf(schema)
  if (converter === undefined) throw noConverter(owner, vendor)
  try {
    return asObject(converter(schema))
  } catch (cause) {
    throw new NotRepresentable(reasonOf(cause), { cause })
  }
}

type Converter = (schema: StandardSchema) => unknown

function converterOf(schema: StandardSchema): Converter | undefined {
  if (schema['~standard'].vendor === 'arktype') {
    // The input of a morph. A schema of arktype is a function with this property.
    const input: unknown = Reflect.get(schema, 'in')
    const method = methodOf(input, 'toJsonSchema')
    if (method !== undefined) return () => method({ target: TARGET, fallback: { date: () => DATE } })
  }
  const standard = methodOf(Reflect.get(schema['~standard'], 'jsonSchema'), 'input')
  if (standard === undefined) return undefined
  const isZod = schema['~standard'].vendor === 'zod'
  return () => standard({ target: TARGET, ...(isZod ? { libraryOptions: ZOD_OPTIONS } : {}) })
}

interface ZodContext {
  readonly zodSchema: { readonly _zod: { readonly def: { readonly type: string } } }
  readonly jsonSchema: Record<string, unknown>
  readonly path: readonly (string | number)[]
}

/** Types of zod that have no JSON Schema. `any` and `unknown` accept every value. */
const NOT_IN_JSON = new Set([
  'bigint',
  'symbol',
  'undefined',
  'void',
  'map',
  'set',
  'nan',
  'custom',
  'function',
])

const ZOD_OPTIONS = {
  unrepresentable: 'any',
  override: ({ zodSchema, jsonSchema }: ZodContext): void => {
    const { type } = zodSchema._zod.def
    if (type === 'date') Object.assign(jsonSchema, DATE)
    else if (NOT_IN_JSON.has(type) && Object.keys(jsonSchema).length === 0)
      throw new Error(`"${type}" cannot be represented in JSON Schema`)
  },
}

async function loadValibotConverter(owner: string): Promise<Converter> {
  const { toJsonSchema } = await loadConverter(owner)
  return schema =>
    isOfValibot(schema) &&
    toJsonSchema(schema, {
      typeMode: 'input',
      target: TARGET,
      overrideSchema: ({ valibotSchema }) => (valibotSchema.type === 'date' ? DATE : undefined),
    })
}

type ValibotConverter = typeof import('@valibot/to-json-schema')
type ValibotSchema = Parameters<ValibotConverter['toJsonSchema']>[0]

function isOfValibot(schema: StandardSchema | ValibotSchema): schema is ValibotSchema {
  return schema['~standard'].vendor === 'valibot'
}

function loadConverter(owner: string): Promise<ValibotConverter> {
  return import('@valibot/to-json-schema').catch((cause: unknown) => {
    throw new MqttError(
      'INVALID_OPTION',
      `${owner}: the package @valibot/to-json-schema, which converts schemas of valibot to JSON Schema, could not be loaded; install it: npm install @valibot/to-json-schema`,
      { cause },
    )
  })
}

const UPDATES: Readonly<Record<string, string>> = {
  zod: 'update zod to 4.2 or later',
  arktype: 'update arktype to 2.1.28 or later',
}

function noConverter(owner: string, vendor: string): MqttError {
  const update = Object.hasOwn(UPDATES, vendor) ? `${UPDATES[vendor]}, or ` : ''
  return new MqttError(
    'INVALID_OPTION',
    `${owner}: its "${vendor}" schema does not implement Standard JSON Schema; ${update}set the option "toJsonSchema" of createAsyncApiDocument() to a function that converts it`,
  )
}

function methodOf(owner: unknown, name: string): ((options: object) => unknown) | undefined {
  if ((typeof owner !== 'object' && typeof owner !== 'function') || owner === null) return undefined
  const method: unknown = Reflect.get(owner, name)
  return typeof method === 'function' ? options => Reflect.apply(method, owner, [options]) : undefined
}

function asObject(value: unknown): JsonSchema {
  if (value === true) return {}
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Error(`the converter returned a value of type ${typeof value}, not a JSON Schema`)
  return Object.fromEntries(Object.entries(value))
}

function reasonOf(cause: unknown): string {
  // arktype throws an object that only has a code.
  const code: unknown = typeof cause === 'object' && cause !== null ? Reflect.get(cause, 'code') : undefined
  const text = cause instanceof Error && cause.message.trim() !== '' ? cause.message : String(code ?? cause)
  return text.replaceAll(/\s+/g, ' ').trim()
}

/** Keywords whose values are data, in which "$ref" has no meaning. */
const DATA = new Set(['const', 'default', 'enum', 'examples'])

/**
 * Moves a schema into a document: references within the schema point to its new place.
 * @param place JSON Pointer of the schema in the document, such as `#/components/schemas/Reading`
 */
export function placed(schema: JsonSchema, place: string): JsonSchema {
  return Object.fromEntries(
    Object.entries(schema)
      .filter(([key]) => key !== '$schema' && key !== '$id')
      .map(([key, value]) => [key, DATA.has(key) ? value : placedValue(key, value, place)]),
  )
}

function placedValue(key: string, value: unknown, place: string): unknown {
  if (key === '$ref' && typeof value === 'string')
    return value.startsWith('#') ? `${place}${value.slice(1)}` : value
  if (Array.isArray(value)) return value.map(item => placedItem(item, place))
  if (key === 'properties' || key === 'patternProperties' || key === 'definitions' || key === '$defs')
    return placedMap(value, place)
  return placedItem(value, place)
}

/** The keys of such an object are names of the application, not keywords. */
function placedMap(value: unknown, place: string): unknown {
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, placedItem(item, place)]))
}

function placedItem(item: unknown, place: string): unknown {
  if (Array.isArray(item)) return item.map(inner => placedItem(inner, place))
  return typeof item === 'object' && item !== null
    ? placed(Object.fromEntries(Object.entries(item)), place)
    : item
}
