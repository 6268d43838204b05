export type { MqttMessage, MqttMessages, MqttRun, MqttSubscription } from './client/inbound/subscriber.js'
export { MqttClient } from './client/mqtt-client.js'
export type { MqttHealth, MqttStats, StoreStats } from './client/report.js'
export type { WaitOptions } from './client/waits.js'
export type {
  ConnectedSession,
  ConnectionState,
  ProtocolVersion,
} from './core/connection/connection-state.js'
export {
  isMqttError,
  MQTT_ERROR_CODES,
  MqttError,
  type MqttErrorCode,
  type MqttErrorDetails,
  type PayloadIssue,
} from './core/errors.js'
export type {
  CountedInbound,
  FailurePolicy,
  InboundCounters,
  InboxScope,
  InboxStore,
} from './core/inbound/inbound-count.js'
export type {
  MessageStore,
  MessageToStore,
  StoreAddition,
  StoreChange,
  StoreContents,
  StoredMessage,
  StoredOutcome,
  StoredOutcomeQuery,
  StoredSettlement,
  StoreListener,
  StoreReadLimit,
} from './core/outbound/message-store.js'
export type {
  DropReason,
  OutboundCounters,
  PublishOutcome,
  TryPublishOutcome,
} from './core/outbound/publish-outcome.js'
export type { BrokerLimits, PublishPacket, PublishProperties } from './core/protocol/packets.js'
export { describeReasonCode } from './core/protocol/packets.js'
export type { RequestProtocol } from './core/requests/request-rules.js'
export type { Retained, RetainedChange } from './core/subscriptions/retained-values.js'
export type { SubscriptionCounters } from './core/subscriptions/subscription-rules.js'
export { fillTopic, type TopicParams } from './core/topic/topic-filter.js'
export {
  type MethodDecoratorFor,
  MqttBatch,
  MqttPacket,
  MqttTopic,
  OnMqttConnect,
  type OnMqttConnectionOptions,
  OnMqttDisconnect,
  OnMqttEvent,
  type OnMqttOptions,
  OnMqttRequest,
  OnMqttSessionLost,
  OnMqttUnmatched,
  type OnMqttUnmatchedOptions,
  TopicParam,
  UserProperty,
} from './mqtt.decorators.js'
export type { MqttModuleExtras } from './mqtt.module.js'
export { MqttModule } from './mqtt.module.js'
export {
  InjectMqtt,
  InjectMqttClient,
  MqttService,
  mqttClientToken,
  mqttServiceToken,
  mqttTransportId,
  mqttTransportToken,
} from './mqtt.service.js'
export type {
  AuthenticationExchange,
  AuthenticationOptions,
  AuthenticationStart,
} from './options/authentication.js'
export { type BrokerProfile, brokerProfiles } from './options/broker-profiles.js'
export type {
  MessagesOptions,
  MqttConnectOptions,
  MqttLogger,
  PublishOptions,
  RequestOptions,
  RespondOptions,
  RetainedOptions,
  StoreOptions,
  TryPublishOptions,
} from './options/client-options.js'
export {
  bytesCodec,
  type Codec,
  type CodecName,
  type CodecOption,
  contentTypeCodec,
  jsonCodec,
  type SchemaIssue,
  type SchemaResult,
  type StandardSchema,
  textCodec,
} from './options/codec.js'
export {
  type BatchOptions,
  type DedupeOptions,
  deadLetter,
  type HandlerOptions,
  handle,
  type KeyedMessage,
  type RetryOptions,
} from './options/handler-options.js'
export type {
  BackoffOptions,
  ConnectionFailure,
  InboundOptions,
  KnownLimits,
  MqttCredentials,
  MqttModuleOptions,
  OutboundOptions,
  PassThroughOptions,
  PresenceOptions,
  ReconnectOptions,
  RequestDefaults,
  SocketOptions,
  Verdict,
  WhenBlocked,
} from './options/options.js'
export {
  defineTopic,
  type TopicAddress,
  type TopicContract,
  type TopicInput,
  type TopicOptions,
  type TopicPayload,
  type TopicPolicy,
  type TopicResponse,
  type TopicResponseInput,
} from './options/topic-contract.js'
export { type MqttClientOptions, MqttClientProxy } from './transport/mqtt.client-proxy.js'
export { MqttBatchContext, MqttContext } from './transport/mqtt.context.js'
export { type MqttStatus, MqttTransport, type MqttTransportEvents } from './transport/mqtt.transport.js'
