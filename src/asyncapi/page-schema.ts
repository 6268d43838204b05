import type { AsyncApiDocument } from './document.js'
import type { JsonSchema } from './json-schemas.js'
import { type Html, html } from './page-html.js'

/** Schemas that refer to each other could otherwise fill any memory. */
const MAX_NODES = 400
const MAX_DEPTH = 12
const MAX_EXAMPLES = 3

/** How many more properties of one payload may be shown. */
interface Budget {
  nodes: number
}

/** Shows a schema as a list of its properties. */
export function schemaHtml(document: AsyncApiDocument, given: unknown): Html {
  const { schema, refs } = resolved(document, given, [])
  const rows = rowsHtml(document, schema, { nodes: MAX_NODES }, { refs, depth: 0 })
  return html`<div class="plain">${summaryHtml(schema)}</div>${rows}`
}

/** Where a schema is: the references on the way to it, so that a schema can contain itself. */
interface Place {
  readonly refs: readonly string[]
  readonly depth: number
}

function rowsHtml(
  document: AsyncApiDocument,
  schema: JsonSchema | undefined,
  budget: Budget,
  place: Place,
): Html {
  const required = schema?.['required']
  const must = new Set(Array.isArray(required) ? required.map(String) : [])
  const rows: Html[] = []
  for (const [label, value, name] of [...propertiesOf(schema), ...innerOf(schema)]) {
    budget.nodes -= 1
    if (budget.nodes < 0) {
      rows.push(html`<li class="soft">The JSON document has more.</li>`)
      break
    }
    const isRequired = name !== undefined && must.has(name)
    const text = name === undefined ? html`<span class="soft">${label}:</span>` : html`<code>${name}</code>`
    const mark = isRequired ? html` <span class="must">required</span>` : undefined
    rows.push(html`<li>${text} ${rowHtml(document, value, mark, budget, place)}</li>`)
  }
  return rows.length === 0 ? html`` : html`<ul class="schema">${rows}</ul>`
}

function rowHtml(
  document: AsyncApiDocument,
  value: unknown,
  mark: Html | undefined,
  budget: Budget,
  { refs: before, depth }: Place,
): Html {
  const { schema, refs, isRepeated } = resolved(document, value, before)
  if (isRepeated) return html`${mark} <span class="soft">contains itself, as above</span>`
  if (depth >= MAX_DEPTH) return html`${mark} <span class="soft">see the JSON document for more</span>`
  return html`${summaryHtml(schema, mark)}${rowsHtml(document, schema, budget, { refs, depth: depth + 1 })}`
}

/** Follows references. */
function resolved(document: AsyncApiDocument, value: unknown, before: readonly string[]) {
  let schema = asObject(value)
  const refs = [...before]
  for (let ref = schema?.['$ref']; typeof ref === 'string'; ref = schema?.['$ref']) {
    if (refs.includes(ref)) return { schema, refs, isRepeated: true }
    refs.push(ref)
    schema = asObject(pointedAt(document, ref))
  }
  return { schema, refs, isRepeated: false }
}

function pointedAt(document: AsyncApiDocument, ref: string): unknown {
  if (!ref.startsWith('#/')) return undefined
  let value: unknown = document
  for (const key of ref.slice(2).split('/')) {
    const name = key.replaceAll('~1', '/').replaceAll('~0', '~')
    value =
      typeof value === 'object' && value !== null && Object.hasOwn(value, name)
        ? Reflect.get(value, name)
        : undefined
  }
  return value
}

type Part = readonly [label: string, schema: unknown, property?: string]

function propertiesOf(schema: JsonSchema | undefined): Part[] {
  return Object.entries(asObject(schema?.['properties']) ?? {}).map(([name, value]) => ['', value, name])
}

/** The schemas within a schema, besides its properties. */
function innerOf(schema: JsonSchema | undefined): Part[] {
  if (schema === undefined) return []
  const { items, additionalProperties, patternProperties } = schema
  const list: Part[] = Array.isArray(items)
    ? items.map((item, index) => [`item ${index + 1}`, item])
    : items === undefined
      ? []
      : [['each item', items]]
  const alternatives = ['oneOf', 'anyOf', 'allOf'].flatMap((key): Part[] => {
    const parts = schema[key]
    if (!Array.isArray(parts)) return []
    const label = key === 'allOf' ? 'all of' : 'or'
    return parts.map((part, index) => [key !== 'allOf' && index === 0 ? 'either' : label, part])
  })
  const patterns = Object.entries(asObject(patternProperties) ?? {}).map(
    ([name, value]): Part => [`properties that match ${name}`, value],
  )
  const others: Part[] =
    asObject(additionalProperties) === undefined ? [] : [['any other property', additionalProperties]]
  return [...list, ...alternatives, ...patterns, ...others]
}

const LIMITS: readonly (readonly [string, string])[] = [
  ['format', ''],
  ['minimum', '≥ '],
  ['exclusiveMinimum', '> '],
  ['maximum', '≤ '],
  ['exclusiveMaximum', '< '],
  ['multipleOf', 'multiple of '],
  ['minLength', 'length ≥ '],
  ['maxLength', 'length ≤ '],
  ['minItems', 'items ≥ '],
  ['maxItems', 'items ≤ '],
  ['pattern', 'matches '],
  ['contentEncoding', ''],
  ['default', 'default '],
]

function summaryHtml(schema: JsonSchema | undefined, mark?: Html): Html {
  if (schema === undefined) return html`<span class="type">any</span>${mark}`
  const { type, const: constant, enum: values, examples, description } = schema
  const types = Array.isArray(type) ? type.join(' or ') : typeof type === 'string' ? type : ''
  const limits = LIMITS.filter(([key]) => isTelling(schema, key)).map(
    ([key, text]) => `${text}${shown(schema[key])}`,
  )
  const oneOf = Array.isArray(values) ? values : constant === undefined ? [] : [constant]
  const choices = oneOf.slice(0, 50).map(codeHtml)
  const hasSamples = Array.isArray(examples) && oneOf.length === 0
  const samples = hasSamples ? examples.slice(0, MAX_EXAMPLES).map(codeHtml) : []
  const words = [types, ...limits, samples.length === 0 ? '' : 'for example']
    .filter(word => word !== '')
    .join(', ')
  const text = typeof description === 'string' ? html`<p>${description}</p>` : undefined
  return html`<span class="type">${words}</span>${samples}${choices}${mark}${text}`
}

const codeHtml = (value: unknown): Html => html` <code>${JSON.stringify(value)}</code>`

/** Libraries write the limits of every integer, and a long expression for each format. */
function isTelling(schema: JsonSchema, key: string): boolean {
  if (key === 'pattern' && schema['format'] !== undefined) return false
  return schema[key] !== undefined && !isSafeInteger(schema[key])
}

/** The limit of every integer in JavaScript, which zod writes for those without a limit. */
const isSafeInteger = (value: unknown): boolean => Math.abs(Number(value)) === Number.MAX_SAFE_INTEGER

const shown = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value))

function asObject(value: unknown): JsonSchema | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value))
    : undefined
}
