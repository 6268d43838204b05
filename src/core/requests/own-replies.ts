const MAX_TOPICS = 1_000

/**
 * Topics that carry answers and nothing else: a wildcard handler must not take an answer that this connection gave, or
 * gets, for an event.
 */
export class OwnReplies {
  /** Reply topics of Nest's envelope, in the order of their last use. */
  private readonly topics = new Set<string>()

  constructor(private readonly responseTopicPrefix: string) {}

  add(topic: string): void {
    this.topics.delete(topic)
    this.topics.add(topic)
    if (this.topics.size <= MAX_TOPICS) return
    const [oldest = ''] = this.topics
    this.topics.delete(oldest)
  }

  has(topic: string): boolean {
    return topic.startsWith(`${this.responseTopicPrefix}/`) || this.topics.has(topic)
  }
}
