import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { describe, expect, it } from 'vitest'
import { LEFT_AND_LOST, LEFT_TO_BROKER } from '../../src/client/inbound/backpressure.js'
import { Journal } from '../../src/client/journal.js'
import type { ConnectionState } from '../../src/core/connection/connection-state.js'
import { ExpiryWarnings, INSECURE_TLS } from '../../src/core/connection/tls-rules.js'
import { MQTT_ERROR_CODES, MqttError } from '../../src/core/errors.js'
import type { Notice } from '../../src/core/log-lines.js'
import type { DropReason } from '../../src/core/outbound/publish-outcome.js'
import { brokerLimits } from '../../src/core/protocol/packets.js'
import { refusal, uncertainShare } from '../../src/core/subscriptions/subscription-rules.js'
import { parseTopicFilter } from '../../src/core/topic/topic-filter.js'
import { resolveOptions } from '../../src/options/option-checks.js'
import { RecordingLog } from '../support/recording-log.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const SRC = join(ROOT, 'src')
const PAGE = readFileSync(join(ROOT, 'docs/troubleshooting.md'), 'utf8')

/** The headings of the page that are log lines. */
const entries = [...PAGE.matchAll(/^### `(.+)`$/gm)].map(([, line = '']) => line)

type NoticeOf<T extends Notice['type']> = Extract<Notice, { type: T }>
type Untyped<T extends Notice['type']> = Omit<NoticeOf<T>, 'type'>

const lost = new MqttError('CONNECTION_LOST', 'the broker sent DISCONNECT')
const redirected = new MqttError('CONNECTION_LOST', 'the broker sent DISCONNECT', {
  reasonCode: 0x9c,
  serverReference: 'b.example',
})
const idle: ConnectionState = { status: 'idle' }
const connected: ConnectionState = {
  status: 'connected',
  attempt: 1,
  session: { broker: 'mqtt://a', protocolVersion: 5, sessionPresent: false, limits: brokerLimits(5) },
}
const waiting = (attempt: number): ConnectionState => ({
  status: 'waiting',
  attempt,
  delayMs: 500,
  cause: lost,
})
const REASONS: Record<DropReason, true> = {
  offline: true,
  backlog: true,
  'in-flight-full': true,
  'queue-full': true,
  superseded: true,
  expired: true,
  aborted: true,
  closed: true,
  'store-failed': true,
  'store-full': true,
}

const expiry = (validToMs: number): { text: string }[] =>
  new ExpiryWarnings(1)
    .due([{ of: 'the broker', subject: 'CN=a', lastDay: '2030-06-13', validToMs }], 1)
    .map(text => ({ text }))

/** Examples of every notice. A new type of notice does not compile without some. */
const EXAMPLES: { readonly [T in Notice['type']]: readonly Untyped<T>[] } = {
  'handler-failed': [
    { pattern: 'a/+', topic: 'a/b', error: new Error('disk full') },
    { pattern: 'a/+', topic: 'a/b', error: new MqttError('PAYLOAD_NOT_DECODABLE', '"a/b" is not JSON') },
  ],
  unmatched: [{ topic: 'a/b' }],
  'inbound-dropped': [{}],
  'acknowledgements-held-up': [{ heldUp: { topic: 'a/b', patterns: ['a/+'], ageMs: 10_000, behind: 2 } }],
  'publish-dropped': [],
  'drops-over': [{}],
  'publish-refused': [{ topic: 'a/b', reasonCode: 0x87, reasonString: undefined }],
  'dead-letters-downgraded': [{ topic: 'dead/a' }],
  'dead-letter-refused': Array.from({ length: 103 }, (_, index) => ({
    topic: `dead/${index}`,
    why: `offline; the message ${index % 2 === 0 ? 'waits until it can' : 'is lost'}`,
  })),
  'dead-letter-without-subscriber': [{ topic: 'dead/a' }],
  'response-not-delivered': [{ topic: 'a/b', why: 'lost' }],
  'stream-evicted': [{ topic: 'a/b' }],
  'stored-message-ended': [
    { topic: 'a/b', status: 'evicted' },
    { topic: 'a/b', status: 'expired' },
    { topic: 'a/b', status: 'refused' },
    { topic: 'a/b', status: 'set-aside' },
  ],
  'store-failed': [{ why: 'the disk is full' }],
  'store-repaired': [
    {
      text: 'the store "messages.db" was damaged and has been repaired: 12 messages were kept, 1 could not be read. The damaged file is messages.db.damaged',
    },
  ],
  'subscription-refused': [{ error: refusal('a/b', 'Not authorized') }],
  'subscription-recovered': [{ subscription: 'a/b' }],
  // The other texts of these two are found in the source.
  'subscription-warning': [{ text: uncertainShare(parseTopicFilter('$share/group/a')) }],
  'presence-failed': [],
  'connection-warning': [
    { text: INSECURE_TLS },
    { text: LEFT_TO_BROKER },
    { text: LEFT_AND_LOST },
    ...expiry(0),
    ...expiry(2),
  ],
  state: [
    { before: idle, state: waiting(1) },
    { before: connected, state: waiting(0) },
    { before: idle, state: { status: 'closed', cause: lost } },
    { before: idle, state: { status: 'connecting', attempt: 1, cause: redirected } },
  ],
  'connection-lost': Array.from({ length: 3 }, () => ({ wasShort: true })),
  'session-lost': [{}],
  'credentials-not-renewed': [{ why: 'the vault is closed' }],
  'failure-while-ending': [{ cause: lost }],
  'shutdown-gave-up': [
    { afterMs: 4_000, left: { running: 1, waiting: 0, streams: 0, unacknowledged: 0, queued: 0 } },
  ],
}

/** Warnings and errors that the journal writes for these notices, each of them twice. */
function written(notices: readonly unknown[]): string[] {
  const log = new RecordingLog()
  const journal = new Journal(log, resolveOptions({ url: 'mqtt://localhost' }))
  for (const notice of [...notices, ...notices]) Reflect.apply(journal.write, journal, [notice])
  journal.flush()
  return log.lines
    .filter(({ level }) => level === 'warn' || level === 'error')
    .map(({ text }) => text.replace(/: \d+ more within [\d.]+ s$/, ''))
}

function linesOfJournal(): string[] {
  const ofDrops = Object.keys(REASONS).flatMap(reason =>
    written([{ type: 'publish-dropped', reason }, { type: 'drops-over' }]),
  )
  const ofNotices = Object.entries(EXAMPLES).flatMap(([type, examples]) =>
    written(examples.map(example => ({ type, ...example }))),
  )
  return [...ofDrops, ...ofNotices]
}

/** A text in the source, with `…` for each value in it. */
function textOf(node: ts.Node | undefined): string | undefined {
  if (node === undefined) return undefined
  if (ts.isStringLiteral(node) || ts.isNoSubstitutionTemplateLiteral(node)) return node.text
  if (!ts.isTemplateExpression(node)) return undefined
  return node.head.text + node.templateSpans.map(span => `…${span.literal.text}`).join('')
}

/** Not `this.warn()`, which adds to its text. */
const LOGGED = /(?<!^this)\.(?:warn|error|emitWarning)$/
const TEXT_NOTICE = /type: '(?:subscription-warning|presence-failed)'/

/** Texts that a file logs itself, and the texts of notices that have one. */
function linesOfFile(path: string): string[] {
  const source = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true)
  const lines: (string | undefined)[] = []
  const constants = new Map<string, string | undefined>()
  const visit = (node: ts.Node): void => {
    if (ts.isVariableDeclaration(node)) constants.set(node.name.getText(), textOf(node.initializer))
    if (ts.isCallExpression(node) && LOGGED.test(node.expression.getText()))
      lines.push(textOf(node.arguments[0]))
    if (ts.isObjectLiteralExpression(node) && TEXT_NOTICE.test(node.getText()))
      for (const property of node.properties)
        if (ts.isShorthandPropertyAssignment(property)) lines.push(constants.get(property.name.text))
    ts.forEachChild(node, visit)
  }
  visit(source)
  return lines.filter(line => line !== undefined)
}

/** The command line writes for its caller, not to a log. */
function linesOfSource(): string[] {
  const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  return files
    .filter(file => file.endsWith('.ts') && !file.startsWith('cli/'))
    .flatMap(file => linesOfFile(join(SRC, file)))
}

/** The entry of a line: of those that fit, the one with the most text. */
function entryOf(line: string): string | undefined {
  const fits = entries.filter(entry => {
    const parts = entry.split('…').map(part => part.replaceAll(/[$()*+.?[\\\]^{|}]/g, '\\$&'))
    return new RegExp(`^${parts.join('.*')}$`, 's').test(line)
  })
  return fits.sort((a, b) => b.replaceAll('…', '').length - a.replaceAll('…', '').length)[0]
}

const lines = [...linesOfJournal(), ...linesOfSource()]

describe('docs/troubleshooting.md', () => {
  it('finds the lines of the package', () => {
    expect(lines).toContain('publishes are dropped while there is no connection')
    expect(lines).toContain('the processing end hook failed: …')
    expect(lines).toContain('other failures')
  })

  it('has an entry for every warning and every error', () => {
    expect(lines.filter(line => entryOf(line) === undefined)).toEqual([])
  })

  it.each(entries)('has no entry for a line that is not logged: %s', entry => {
    expect(lines.map(entryOf)).toContain(entry)
  })

  it('says for each line that is no count of repeats at which level it is logged', () => {
    const sections = PAGE.split(/^### /m).slice(1)
    const isSilent = (text: string) =>
      !/^(?:Level `|A process warning|Repeats|The same|More than 100)/m.test(text)
    expect(sections.filter(isSilent)).toEqual([])
  })

  it('has a row for every error code, and no other', () => {
    const codes = [...PAGE.matchAll(/^\| `([A-Z_]+)` \|/gm)].map(([, code]) => code)
    expect(codes).toEqual([...MQTT_ERROR_CODES])
  })
})
