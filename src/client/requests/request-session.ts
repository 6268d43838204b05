import type { ConnectionState, ProtocolVersion } from '../../core/connection/connection-state.js'
import type { MqttError } from '../../core/errors.js'
import type { OutboundMessage, PublishTerms } from '../../core/outbound/outbound-message.js'
import type { PublishOutcome } from '../../core/outbound/publish-outcome.js'
import type { SubscriptionOptions } from '../../core/subscriptions/subscription-rules.js'
import type { TopicFilter } from '../../core/topic/topic-filter.js'
import type { WaitOptions } from '../connection/connection-wait.js'
import type { ClientEvents } from '../events.js'
import type { InboundHandler } from '../inbound/inbound-handler.js'
import type { BlockableRequest } from '../inbound/run-context.js'

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
      requestOpened(request?: BlockableRequest): () => void
      /** Handlers that begin from now on know their requests. */
      trackRequests(): void
    }
  }
  readonly events: ClientEvents
  publish(message: OutboundMessage, terms?: PublishTerms): PublishOutcome | Promise<PublishOutcome>
}
