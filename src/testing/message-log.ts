import { matchesTopicFilter, parseTopicFilter, type TopicFilter } from '../core/topic/topic-filter.js'
import { WAIT_MS, within } from './real-time.js'

/** A message that a client published or acknowledged. */
export interface BrokerMessage {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  /** Client Identifier of that client. */
  readonly clientId: string
}

export interface NextOptions {
  /** Time limit in milliseconds of real time, also with fake timers. @default 4000 */
  readonly timeoutMs?: number
}

/** Limit that keeps a long test from filling the memory. The oldest messages are removed. */
const MAX_MESSAGES = 1_000
const MAX_BYTES = 16 * 1024 * 1024

interface Waiter {
  readonly filter: TopicFilter
  readonly take: (message: BrokerMessage) => void
}

/** Messages in the order of arrival. Each can be taken once. */
export class MessageLog {
  private readonly messages: BrokerMessage[] = []
  private readonly taken = new WeakSet<BrokerMessage>()
  private readonly waiters = new Set<Waiter>()
  private bytes = 0

  constructor(private readonly verb: string) {}

  get all(): readonly BrokerMessage[] {
    return this.messages
  }

  add(message: BrokerMessage): void {
    this.messages.push(message)
    this.bytes += message.payload.length
    while (this.messages.length > MAX_MESSAGES || this.bytes > MAX_BYTES) {
      this.bytes -= this.messages.shift()?.payload.length ?? 0
    }
    for (const waiter of this.waiters) {
      if (!matchesTopicFilter(waiter.filter, message.topic)) continue
      this.waiters.delete(waiter)
      this.taken.add(message)
      return waiter.take(message)
    }
  }

  /** Takes the first message on a matching topic that was not taken before, and waits for it if there is none. */
  async next(topicFilter: string, { timeoutMs = WAIT_MS }: NextOptions = {}): Promise<BrokerMessage> {
    const filter = parseTopicFilter(topicFilter)
    const found = this.messages.find(
      message => !this.taken.has(message) && matchesTopicFilter(filter, message.topic),
    )
    if (found !== undefined) {
      this.taken.add(found)
      return found
    }
    let waiter: Waiter | undefined
    const message = new Promise<BrokerMessage>(take => {
      waiter = { filter, take }
      this.waiters.add(waiter)
    })
    return within(message, timeoutMs, () => {
      if (waiter !== undefined) this.waiters.delete(waiter)
      return `no message on "${topicFilter}" was ${this.verb} within ${timeoutMs} ms; ${this.seen()}`
    })
  }

  private seen(): string {
    const topics = [...new Set(this.messages.map(message => `"${message.topic}"`))]
    return topics.length === 0
      ? `none was ${this.verb} on any topic`
      : `${this.verb} so far: ${topics.slice(-5).join(', ')}`
  }
}
