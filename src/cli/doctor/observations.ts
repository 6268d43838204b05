/** How the broker responded to a CONNECT packet of one protocol version. */
export interface VersionObserved {
  readonly isAccepted: boolean
  /** Reason Code or return code of CONNACK, if there was one. */
  readonly code?: number
  /** Why there was no CONNACK. */
  readonly failure?: string
  /** Whether the broker closed the connection in place of CONNACK. */
  readonly hasHungUp?: boolean
}

/** What CONNACK says (MQTT 5, 3.2.2.3). A missing value means that the broker did not send it. */
export interface ConnackObserved {
  readonly receiveMaximum?: number
  readonly maximumQoS?: number
  readonly retainAvailable?: boolean
  readonly maximumPacketSize?: number
  readonly topicAliasMaximum?: number
  readonly sessionExpiryInterval?: number
  readonly serverKeepAlive?: number
  readonly wildcardSubscriptionAvailable?: boolean
  readonly subscriptionIdentifiersAvailable?: boolean
  readonly sharedSubscriptionAvailable?: boolean
  readonly assignedClientIdentifier?: string
}

/** The connection to the broker, as TLS sees it. */
export interface TlsObserved {
  readonly protocol: string
  readonly cipher: string
  readonly subject: string
  readonly issuer: string
  /** Names that the certificate is valid for. */
  readonly names: string
  /** In milliseconds since 1970. */
  readonly validToMs: number
  /** Subjects from the certificate of the broker to the last one of its chain. */
  readonly chain: readonly string[]
  /** Why Node does not accept the certificate. */
  readonly failure?: string
}

export interface TimesObserved {
  readonly p50Ms: number
  readonly p99Ms: number
  readonly samples: number
}

/** Response to a SUBSCRIBE for one filter. */
interface GrantObserved {
  /** Code of SUBACK; undefined if the broker did not respond. */
  readonly code: number | undefined
}

interface SharedObserved extends GrantObserved {
  readonly published: number
  /** Number of copies that each of the two members received. */
  readonly members: readonly [number, number]
}

interface SessionObserved {
  readonly sessionPresent: boolean
  /** Whether a message that was published in the meantime arrived. */
  readonly hasQueued: boolean
  /** DUP of a message that was not acknowledged on the first connection; undefined if it did not arrive again in time. */
  readonly redeliveredDup: boolean | undefined
  /** Time that the second connection waited after the last message, in milliseconds. */
  readonly quietMs: number
  /** The Session Expiry Interval that was requested, in seconds. */
  readonly requestedExpiry: number
  /** What CONNACK said instead. */
  readonly grantedExpiry?: number
}

interface WindowObserved {
  /** Limit that the client set; undefined on MQTT 3.1.1. */
  readonly limit: number | undefined
  readonly published: number
  /** Unacknowledged messages before the first acknowledgement. */
  readonly before: number
  /** Highest number of unacknowledged messages after it. */
  readonly after: number
}

interface CharacterObserved {
  readonly sent: string
  /** Undefined: it did not arrive. */
  readonly received: string | undefined
  readonly failure?: string
}

interface SysTopicsObserved extends GrantObserved {
  readonly messages: number
  /** Number of different topics. */
  readonly topics: number
  /** Time without a message after which the check ended, in milliseconds. */
  readonly quietMs: number
}

export interface PublishObserved {
  /** Type of the packet that acknowledged it, and its Reason Code. */
  readonly packet?: 'puback' | 'pubrec' | 'pubcomp'
  readonly code?: number
  /** Why there was no acknowledgement. */
  readonly failure?: string
}

/** What the broker did. What is undefined could not be determined; `failures` then says why. */
export interface Observations {
  readonly protocolVersion: 4 | 5
  readonly versions: Readonly<Record<'mqtt5' | 'mqtt311', VersionObserved>>
  readonly nowMs: number
  readonly connack: ConnackObserved
  /** Keep Alive of CONNECT, in seconds. */
  readonly requestedKeepAlive: number
  readonly tls?: TlsObserved
  readonly brokerVersion?: string
  readonly sysTopics?: SysTopicsObserved
  readonly roundTrip?: TimesObserved
  /** Requests of this package through the broker: publish, handler, response. */
  readonly requests?: TimesObserved
  /** Time by which the second of two small packets arrives later than the first one, median in milliseconds. */
  readonly secondPacketMs?: number
  readonly qos1?: PublishObserved
  /** Reason Code of a QoS 1 publish to a topic without subscribers. */
  readonly withoutSubscriber?: PublishObserved
  readonly qos2?: PublishObserved
  readonly largePublish?: PublishObserved & { readonly bytes: number }
  /** QoS of the messages that arrived with a subscription of QoS 1 and 2. Undefined: did not arrive. */
  readonly deliveredQos?: { readonly one: number | undefined; readonly two: number | undefined }
  /** For special characters in a topic: the topic with which the message arrived, without the private prefix. */
  readonly topicCharacters?: readonly CharacterObserved[]
  readonly wildcards?: GrantObserved & { readonly hasMatched: boolean }
  readonly shared?: SharedObserved
  readonly identifiers?: GrantObserved & { readonly returned: readonly number[] }
  readonly overlapping?: { readonly copies: number; readonly identifiers: readonly number[] }
  readonly noLocal?: GrantObserved & { readonly ownCopies: number }
  readonly retained?: {
    readonly publish: PublishObserved
    readonly hasArrived: boolean
    readonly hasFlag: boolean
    /** Whether a filter with a wildcard finds it. */
    readonly hasWildcard: boolean
    readonly isRemoved: boolean
  }
  readonly retainAsPublished?: { readonly flag: boolean | undefined }
  /** Number of retained messages for Retain Handling 1 (subscription exists) and 2. */
  readonly retainHandling?: { readonly existing: number; readonly never: number }
  readonly messageExpiry?: {
    readonly sent: number
    /** Undefined if the message arrived without the property. */
    readonly received: number | undefined
    readonly waitedMs: number
    readonly isExpiredGone: boolean
  }
  readonly userProperties?: { readonly isKept: boolean; readonly isOrdered: boolean }
  readonly topicAlias?: { readonly maximum: number; readonly hasArrived: boolean }
  /** Whether a packet that is larger than the Maximum Packet Size of the client arrived. */
  readonly ownPacketLimit?: {
    readonly limit: number
    readonly hasArrived: boolean
    readonly isAlive: boolean
  }
  readonly session?: SessionObserved
  readonly will?: { readonly hasArrived: boolean }
  readonly receiveMaximum?: WindowObserved
  /** Why a check failed, by its name. */
  readonly failures: Readonly<Record<string, string>>
}
