export {
  bytesCodec,
  type Codec,
  type CodecName,
  type CodecOption,
  contentTypeCodec,
  jsonCodec,
  textCodec,
} from './codec.js'
export {
  isMqttError,
  MQTT_ERROR_CODES,
  MqttError,
  type MqttErrorCode,
  type MqttErrorDetails,
} from './errors.js'
export { InjectMqtt, InjectMqttClient, TopicParam } from './mqtt.decorators.js'
export { MqttModule } from './mqtt.module.js'
export type { MqttModuleExtras } from './mqtt.module-definition.js'
export { MqttService } from './mqtt.service.js'
export { mqttClientToken, mqttServiceToken, mqttTransportId, mqttTransportToken } from './mqtt.tokens.js'
export type {
  BackoffOptions,
  ConnectionFailure,
  InboundOptions,
  MqttCredentials,
  MqttModuleOptions,
  OutboundOptions,
  PassThroughOptions,
  ReconnectOptions,
  RequestDefaults,
  Verdict,
  WhenBlocked,
} from './options.js'
export type { DropReason, PublishOutcome, TryPublishOutcome } from './publish-outcome.js'
export type {
  MessagesOptions,
  MqttMessages,
  PublishOptions,
  RequestOptions,
  TryPublishOptions,
} from './service-options.js'
export { fillTopic, type TopicParams } from './topic/topic-template.js'
export type { BrokerLimits } from './transport/connection/broker-limits.js'
export type {
  ConnectedSession,
  ConnectionState,
  ProtocolVersion,
} from './transport/connection/connection-state.js'
export type { WaitOptions } from './transport/connection/connection-wait.js'
export type { PublishPacket, PublishProperties } from './transport/connection/link.js'
export { describeReasonCode } from './transport/connection/mqtt-client.js'
export type { SubscriptionCounters } from './transport/connection/subscription-options.js'
export {
  deadLetter,
  type HandlerOptions,
  handle,
  type RetryOptions,
} from './transport/handler-options.js'
export type { CountedInbound, InboundCounters } from './transport/inbound/inbound-count.js'
export type { FailurePolicy } from './transport/inbound/inbound-handler.js'
export { type MqttClientOptions, MqttClientProxy } from './transport/mqtt.client-proxy.js'
export { MqttContext } from './transport/mqtt.context.js'
export { type MqttStatus, MqttTransport, type MqttTransportEvents } from './transport/mqtt.transport.js'
export type { OutboundCounters } from './transport/outbound/outbound-message.js'
export type { RequestProtocol } from './transport/requests/request-plan.js'
export type { MqttHealth, MqttStats } from './transport/session-report.js'
export type { MqttMessage, MqttRun, MqttSubscription } from './transport/subscriber.js'
