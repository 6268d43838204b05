import { crc32 } from 'node:zlib'
import {
  type MessageToStore,
  type StoredMessage,
  type StoredOutcome,
  type StoredSettlement,
  storedBytes,
} from '../core/outbound/message-store.js'
import type { PublishProperties } from '../core/protocol/packets.js'
import type { SqlValue } from './sqlite-engine.js'

export type Row = Readonly<Record<string, unknown>>

export function rowOf(value: unknown): Row | undefined {
  // Seam: the rows of both engines are objects with the columns as keys.
  return typeof value === 'object' && value !== null ? (value as Row) : undefined
}

/** A number, or 0 in place of what a damaged record holds. */
export function numberIn(row: Row | undefined, column: string): number {
  const value = row?.[column]
  return typeof value === 'number' ? value : 0
}

/** Text, or none in place of what a damaged record holds. */
export function textIn(row: Row | undefined, column: string): string {
  return textOf(row?.[column]) ?? ''
}

/** Text is read as bytes: see `selectFrom`. */
function textOf(value: unknown): string | undefined {
  const bytes = bytesIn(value)
  return bytes === undefined
    ? undefined
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString()
}

/** The values of a record, in the order of the columns. */
export function recordOf(
  message: MessageToStore,
  position: number,
  expiresAtMs: number | undefined,
): SqlValue[] {
  const { qos, retain, payload } = message
  const storedAtMs = Math.round(message.storedAtMs)
  const messageId = message.messageId.toWellFormed()
  const topic = message.topic.toWellFormed()
  const properties = propertiesText(message.properties)
  const fields = [
    position,
    messageId,
    topic,
    qos,
    retain ? 1 : 0,
    storedAtMs,
    expiresAtMs ?? null,
    properties,
  ]
  const bytes = storedBytes(message)
  return [...fields, payload, bytes, checksumOf([...fields, bytes], payload)]
}

/** Returns the message of a row. Undefined if the row is damaged. */
export function messageIn(row: Row): StoredMessage | undefined {
  const payload = bytesIn(row['payload'])
  const [messageId, topic, properties] = ['message_id', 'topic', 'properties'].map(name => textOf(row[name]))
  const { position, qos, retain, stored_at_ms: storedAtMs, expires_at_ms: expiresAtMs, bytes, checksum } = row
  const fields = [position, messageId, topic, qos, retain, storedAtMs, expiresAtMs, properties ?? null, bytes]
  if (payload === undefined || checksumOf(fields, payload) !== checksum) return undefined
  if (messageId === undefined || topic === undefined || (qos !== 1 && qos !== 2)) return undefined
  return {
    position: numberIn(row, 'position'),
    messageId,
    topic,
    payload,
    qos,
    retain: retain === 1,
    ...(properties === undefined ? {} : { properties: propertiesIn(properties) }),
    storedAtMs: numberIn(row, 'stored_at_ms'),
    ...(typeof expiresAtMs === 'number' ? { expiresAtMs } : {}),
  }
}

/** libsql returns an ArrayBuffer. */
function bytesIn(value: unknown): Uint8Array | undefined {
  if (value instanceof Uint8Array) return value
  return value instanceof ArrayBuffer ? new Uint8Array(value) : undefined
}

export function checksumOf(fields: readonly unknown[], payload?: Uint8Array): number {
  const ofFields = crc32(JSON.stringify(fields))
  return payload === undefined ? ofFields : crc32(payload, ofFields)
}

/** Correlation Data is binary. */
function propertiesText(properties: PublishProperties | undefined): string | null {
  if (properties === undefined) return null
  const { correlationData, ...others } = properties
  if (correlationData === undefined) return JSON.stringify(others)
  return JSON.stringify({ ...others, correlationData: Buffer.from(correlationData).toString('base64') })
}

function propertiesIn(text: string): PublishProperties {
  const properties: Record<string, unknown> = JSON.parse(text)
  const { correlationData } = properties
  if (typeof correlationData !== 'string') return properties
  return { ...properties, correlationData: Buffer.from(correlationData, 'base64') }
}

/** The values of a line of the journal, in the order of the columns after `seq`. */
export function journalLine({
  messageId,
  topic,
  storedAtMs,
  settledAtMs,
  outcome,
}: StoredSettlement): SqlValue[] {
  const reasonCode = 'reasonCode' in outcome ? outcome.reasonCode : null
  const reasonString = 'reasonString' in outcome ? (outcome.reasonString ?? null) : null
  return [messageId, topic, storedAtMs, settledAtMs, outcome.status, reasonCode, reasonString]
}

export function settlementIn(value: unknown): StoredSettlement {
  const row = rowOf(value)
  return {
    messageId: textIn(row, 'message_id'),
    topic: textIn(row, 'topic'),
    storedAtMs: numberIn(row, 'stored_at_ms'),
    settledAtMs: numberIn(row, 'settled_at_ms'),
    outcome: outcomeIn(row),
  }
}

function outcomeIn(row: Row | undefined): StoredOutcome {
  const reasonCode = numberIn(row, 'reason_code')
  const reasonString = textOf(row?.['reason_string'])
  switch (textIn(row, 'status')) {
    case 'delivered':
      return { status: 'delivered', reasonCode }
    case 'refused':
      return { status: 'refused', reasonCode, ...(reasonString === undefined ? {} : { reasonString }) }
    case 'evicted':
      return { status: 'evicted' }
    case 'expired':
      return { status: 'expired' }
    default:
      return { status: 'set-aside' }
  }
}
