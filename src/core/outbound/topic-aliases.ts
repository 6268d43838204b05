import type { TopicAlias } from '../protocol/write-batch.js'

/** Shorter topics gain nothing: the property takes three bytes itself. */
const WORTHWHILE_LENGTH = 6

/**
 * Topic Aliases of one connection, as many as the broker takes (MQTT 5, 3.3.2.3.4). The topic that was not used for
 * the longest time gives its alias to a new one.
 */
export class TopicAliases {
  /** In the order of their last use. */
  private readonly known = new Map<string, number>()
  private lastTopic: string | undefined
  private readonly freed: number[] = []

  constructor(private readonly maximum: number) {}

  /** Only for a PUBLISH that is written: the broker must hear of every alias that is given here. */
  assign(topic: string): TopicAlias | undefined {
    if (this.maximum === 0 || topic.length < WORTHWHILE_LENGTH) return undefined
    const alias = this.known.get(topic)
    if (alias === undefined) return this.give(topic)
    if (topic !== this.lastTopic) {
      this.known.delete(topic)
      this.known.set(topic, alias)
      this.lastTopic = topic
    }
    return { alias, isNew: false }
  }

  /** The PUBLISH was not written after all. */
  forget(topic: string): void {
    const alias = this.known.get(topic)
    if (alias === undefined) return
    this.known.delete(topic)
    this.freed.push(alias)
    this.lastTopic = undefined
  }

  private give(topic: string): TopicAlias {
    let alias = this.freed.pop() ?? this.known.size + 1
    if (alias > this.maximum) {
      for (const [leastRecent, freed] of this.known) {
        this.known.delete(leastRecent)
        alias = freed
        break
      }
    }
    this.known.set(topic, alias)
    this.lastTopic = topic
    return { alias, isNew: true }
  }
}
