/** Every code of an {@link MqttError}. New codes are added in minor versions only. */
export const MQTT_ERROR_CODES = [
  /** An option is unknown or has an invalid value. */
  'INVALID_OPTION',
  /** A Topic Name is empty, too long, or contains a wildcard or NUL (MQTT 5, 4.7). */
  'INVALID_TOPIC_NAME',
  /** A Topic Filter or pattern is invalid (MQTT 5, 4.7 and 4.8.2). */
  'INVALID_TOPIC_FILTER',
  /** The codec could not encode a payload. */
  'PAYLOAD_NOT_ENCODABLE',
  /** The codec could not decode a payload. */
  'PAYLOAD_NOT_DECODABLE',
  /** A payload or a response does not fit the schema of its contract or handler; see `issues`. */
  'PAYLOAD_INVALID',
  /** A packet exceeds the broker's Maximum Packet Size (MQTT 5, 3.2.2.3.6). */
  'PACKET_TOO_LARGE',
  /** A QoS exceeds the broker's Maximum QoS (MQTT 5, 3.2.2.3.4). */
  'QOS_NOT_SUPPORTED',
  /** A message is retained, but the broker does not support retained messages (MQTT 5, 3.2.2.3.5). */
  'RETAIN_NOT_SUPPORTED',
  /** The network connection failed, or ended before CONNACK. */
  'CONNECT_FAILED',
  /** The broker refused the connection in CONNACK; see `reasonCode`. */
  'CONNECT_REFUSED',
  /** The exchange of AUTH packets failed: this client, the broker or the time limit ended it (MQTT 5, 4.12). */
  'AUTHENTICATION_FAILED',
  /** The connection ended after CONNACK, or a call needs a connection and there is none. */
  'CONNECTION_LOST',
  /** The application closed the connection, or is closing it. */
  'CONNECTION_CLOSED',
  /** The broker refused a subscription in SUBACK; see `reasonCode`. */
  'SUBSCRIBE_REFUSED',
  /** The broker refused to remove a subscription, in UNSUBACK; see `reasonCode`. */
  'UNSUBSCRIBE_REFUSED',
  /** A publish, such as that of a request, was dropped or refused; see `reasonCode`. */
  'NOT_SENT',
  /** The broker reported that nobody subscribes to the topic of a request (MQTT 5, 3.4.2.1). */
  'NO_RESPONDER',
  /** The handler of a request failed; see `response`. */
  'REQUEST_FAILED',
  /** Responses of a stream did not arrive, so it is incomplete: at QoS 0, a lost connection or the broker can lose them. */
  'RESPONSE_LOST',
  /** `requests.maxOpen` requests are already open. */
  'TOO_MANY_REQUESTS',
  /**
   * No response can be delivered at QoS 1: every message that the broker may deliver before it gets an acknowledgement
   * belongs to a handler that waits for a response. Deliver requests and responses at QoS 0, or raise
   * `inbound.maxInFlight`.
   */
  'REQUEST_BLOCKED',
  /** The time limit of a call expired. */
  'TIMEOUT',
  /** The AbortSignal of a call was aborted. */
  'ABORTED',
  /** The file of a store is in use by another process, or the store is already open. */
  'STORE_LOCKED',
  /** The file of a store was written by a newer version of this package. */
  'STORE_VERSION',
  /** The file of a store is not a database of a store, or is damaged so that its records cannot be read. */
  'STORE_CORRUPT',
  /** A store could not read or write: the disk is full, read-only, slow or defective, or the store is closed. */
  'STORE_FAILED',
] as const

/** One of {@link MQTT_ERROR_CODES}. */
export type MqttErrorCode = (typeof MQTT_ERROR_CODES)[number]
