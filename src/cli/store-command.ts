import { resolve } from 'node:path'
import { reportOnStore, type StoreFileReport } from '../store/store-report.js'
import type { CliHost } from './cli-host.js'

/** @throws MqttError `STORE_FAILED`, `STORE_VERSION`, `STORE_CORRUPT` */
export async function listStore(
  { file, isJson }: { readonly file: string; readonly isJson: boolean },
  { cwd, out }: Pick<CliHost, 'cwd' | 'out'>,
): Promise<void> {
  const report = await reportOnStore(resolve(cwd, file))
  await out(isJson ? `${JSON.stringify(report, undefined, 2)}\n` : textOf(report, Date.now()))
}

function textOf(report: StoreFileReport, nowMs: number): string {
  const { file, messages, bytes, oldestStoredAtMs, setAside, topics, topicCount, outcomes } = report
  const age = oldestStoredAtMs === undefined ? '' : `, the oldest ${ageOf(oldestStoredAtMs, nowMs)} old`
  const lines = [`${file}: ${messages} messages, ${bytes} bytes${age}`]
  for (const topic of topics)
    lines.push(
      `  ${topic.topic}: ${topic.messages} messages, ${topic.bytes} bytes, the oldest ${ageOf(topic.oldestStoredAtMs, nowMs)} old`,
    )
  if (topicCount > topics.length) lines.push(`  and ${topicCount - topics.length} more topics`)
  const counts = Object.entries(outcomes).map(([status, count]) => `${count} ${status}`)
  lines.push(`journal of outcomes: ${counts.length === 0 ? 'empty' : counts.join(', ')}`)
  for (const { messageId, topic, settledAtMs, outcome } of report.lastUndelivered)
    lines.push(
      `  ${outcome.status}${'reasonCode' in outcome ? ` 0x${outcome.reasonCode.toString(16)}` : ''}: ${topic || 'topic unknown'}, message ${messageId || 'unknown'}, ${new Date(settledAtMs).toISOString()}`,
    )
  lines.push(`damaged records set aside: ${setAside}`)
  return `${lines.join('\n')}\n`
}

const UNITS = [
  ['days', 86_400_000],
  ['hours', 3_600_000],
  ['minutes', 60_000],
] as const

/** The clock may have been set back since. */
function ageOf(storedAtMs: number, nowMs: number): string {
  const ageMs = Math.max(0, nowMs - storedAtMs)
  for (const [unit, length] of UNITS) if (ageMs >= 2 * length) return `${Math.floor(ageMs / length)} ${unit}`
  return `${Math.floor(ageMs / 1_000)} seconds`
}
