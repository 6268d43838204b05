import { createHash } from 'node:crypto'
import { describeCause, MqttError } from '../../core/errors.js'
import {
  HandledKeys,
  type InboundCount,
  type InboxScope,
  type InboxStore,
} from '../../core/inbound/inbound-count.js'
import type { PublishPacket } from '../../core/protocol/packets.js'
import type { KeyedMessage } from '../../options/handler-options.js'
import { limited } from '../waits.js'
import type { HandlerAttempt, InboundHandler } from './delivery.js'
import type { HandlerRules } from './handler-rules.js'
import { CopyRuns, Duplicate } from './message-stream.js'

/** A store that does not respond must not occupy a slot for ever. */
const STORE_TIMEOUT_MS = 30_000
/** A longer key is replaced by its hash, so that memory is bounded. */
const LONGEST_KEY = 128

/**
 * Returns a function that runs a handler for each message once, as far as its store remembers: `run` itself without `dedupe`.
 * Call `leave` when the handler is removed.
 * @param owner the name of the method or function, which tells the handlers of a pattern apart
 * @throws MqttError `INVALID_OPTION` if another handler has the same scope in the same store
 */
export function deduped<R extends Run>(
  rules: HandlerRules,
  owner: string,
  { dispatcher }: DedupeSession,
  messageOf: (packet: PublishPacket) => KeyedMessage<never>,
  run: R,
): { readonly run: R | InboundHandler['run']; readonly leave: () => void } {
  const { dedupe, runRules } = rules
  if (dedupe === undefined) return { run, leave: () => {} }
  const inbox = new Inbox(dedupe, runRules.name, owner, dispatcher.messages.count, messageOf)
  return { run: inbox.guard(run), leave: () => inbox.leave() }
}

interface DedupeSession {
  readonly dispatcher: { readonly messages: { readonly count: InboundCount } }
}

type Run = (packet: PublishPacket, attempt: HandlerAttempt) => unknown

class Inbox {
  private readonly running = new Map<string, Promise<void>>()
  /** Messages that were handled, and that the store could not remember. */
  private readonly handled = new WeakSet<PublishPacket>()
  private readonly scope: InboxScope
  private readonly store: InboxStore

  constructor(
    private readonly rules: NonNullable<HandlerRules['dedupe']>,
    private readonly pattern: string,
    owner: string,
    private readonly count: InboundCount,
    private readonly messageOf: (packet: PublishPacket) => KeyedMessage<never>,
  ) {
    const { maxAgeMs, maxEntries, scope = `${pattern} ${owner}`.trim() } = rules
    this.scope = { name: scope, maxAgeMs, maxEntries }
    this.store = rules.store ?? new HandledKeys(this.scope, () => performance.now())
    if (count.scopes.take(this.store, scope)) return
    const text = `handler of "${pattern}": another handler has the same dedupe.scope "${scope}" in the same dedupe.store, so that each would treat the messages of the other as repeats; set a different dedupe.scope for each of them`
    throw new MqttError('INVALID_OPTION', text)
  }

  leave(): void {
    this.count.scopes.release(this.store, this.scope.name)
  }

  guard(run: Run): InboundHandler['run'] {
    return async (packet, attempt) => {
      const key = this.keyOf(packet)
      if (key === undefined) {
        if (attempt.number === 1) this.count.counts.withoutKey += 1
        return run(packet, attempt)
      }
      const copy = this.running.get(key)
      if (copy !== undefined) throw new CopyRuns(copy)
      return this.hold(key, attempt.signal, () => this.once(key, packet, attempt, run))
    }
  }

  private async once(key: string, packet: PublishPacket, attempt: HandlerAttempt, run: Run) {
    const { store, scope, handled } = this
    if (!handled.has(packet)) {
      if (await this.ask('look up', () => store.has(key, scope))) throw new Duplicate()
      // After its time limit, the run has failed.
      if (attempt.isAborted) return
      await run(packet, attempt)
      if (attempt.isAborted) return
      handled.add(packet)
    }
    await this.ask('remember', () => store.add(key, scope))
  }

  /** Copies wait until `work` has ended, or is no longer waited for. */
  private async hold(key: string, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    let end = (): void => {}
    const ended = new Promise<void>(resolve => {
      end = resolve
    })
    const release = (): void => {
      if (this.running.get(key) === ended) this.running.delete(key)
      end()
    }
    this.running.set(key, ended)
    signal.addEventListener('abort', release)
    await work().finally(release)
  }

  private keyOf(packet: PublishPacket): string | undefined {
    const { by } = this.rules
    const id = packet.properties?.userProperties?.['message-id']
    const first = Array.isArray(id) ? id[0] : id
    // Neither of them contains NUL [MQTT-1.5.4-2].
    const idKey = first === undefined ? undefined : `${packet.topic}\0${first}`
    const key = by === 'message-id' ? idKey : by(this.messageOf(packet))
    if (key === undefined || key.length <= LONGEST_KEY) return key
    return `sha256:${createHash('sha256').update(key).digest('base64')}`
  }

  private async ask<T>(what: string, call: () => T | Promise<T>): Promise<T> {
    try {
      const result = call()
      if (typeof result !== 'object' || result === null) return result
      return await limited(Promise.resolve(result), 'the store', STORE_TIMEOUT_MS)
    } catch (cause) {
      const text = `the inbox of the handler of "${this.pattern}" could not ${what} the message: ${describeCause(cause)}`
      throw new MqttError('STORE_FAILED', text, { cause })
    }
  }
}
