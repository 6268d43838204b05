import type { MqttError } from '../../errors.js'
import type { PublishOutcome } from '../../publish-outcome.js'
import type { TopicFilter } from '../../topic/topic-filter.js'
import type { ConnectionState, ProtocolVersion } from '../connection/connection-state.js'
import type { WaitOptions } from '../connection/connection-wait.js'
import type { SubscriptionOptions } from '../connection/subscription-options.js'
import type { InboundHandler } from '../inbound/inbound-handler.js'
import type { OutboundMessage, PublishTerms } from '../outbound/outbound-message.js'

/** What requests need of the session that carries them. */
export interface RequestSession {
  readonly connection: {
    readonly state: ConnectionState
    readonly protocolVersion: ProtocolVersion
    attach(listener: { lost(cause: MqttError): void; stateChanged(state: ConnectionState): void }): () => void
  }
  addRoute(filter: TopicFilter, options: SubscriptionOptions, handler: InboundHandler): () => void
  flushSubscriptions(): void
  whenGranted(filter: TopicFilter, wait?: WaitOptions): Promise<void>
  readonly dispatcher: {
    readonly pool: {
      /** A request waits for its response: the handler that made it lends its slot. @returns what says that it has ended */
      requestOpened(): () => void
    }
  }
  publish(message: OutboundMessage, terms?: PublishTerms): PublishOutcome | Promise<PublishOutcome>
}
