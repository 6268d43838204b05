/** The part of `nest-mqtt` 0.2.0 that the comparison uses. It supports Nest 8 at most, so it is not installed. */
declare module 'nest-mqtt' {
  import type { DynamicModule } from '@nestjs/common'
  import type { IClientOptions, IClientPublishOptions } from 'mqtt'

  export const MqttModule: {
    forRoot(options: IClientOptions & { host?: string; port?: number }): DynamicModule
  }
  export class MqttService {
    publish(topic: string, message: string | object, options?: IClientPublishOptions): Promise<unknown>
  }
  export function Subscribe(topic: string): MethodDecorator
  export function Params(): ParameterDecorator
  export function Payload(): ParameterDecorator
}
