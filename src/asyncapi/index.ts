export type {
  AsyncApiChannel,
  AsyncApiDocument,
  AsyncApiMessage,
  AsyncApiOperation,
  AsyncApiParameter,
  AsyncApiReference,
  AsyncApiServer,
} from './document.js'
export { toYaml } from './document.js'
export type { JsonSchema, ToJsonSchema } from './json-schemas.js'
export {
  type AsyncApiOptions,
  type AsyncApiSend,
  createAsyncApiDocument,
} from './mqtt.asyncapi-document.js'
export { AsyncApiModule } from './mqtt.asyncapi-module.js'
export type { AsyncApiServerOptions } from './servers.js'
