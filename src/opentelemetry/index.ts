export type { MqttInstrumentationOptions } from './attributes.js'
export { MqttInstrumentation } from './instrumentation.js'
export { contextOf } from './spans.js'
