export { MqttHealthIndicator, type MqttIndicatorOptions } from './mqtt.health-indicator.js'
