import 'reflect-metadata'
import {
  type ArgumentsHost,
  type CallHandler,
  Catch,
  Controller,
  type DynamicModule,
  type ExecutionContext,
  Inject,
  Injectable,
  Module,
  type NestInterceptor,
  Scope,
  type Type,
  UseFilters,
  UseInterceptors,
} from '@nestjs/common'
import {
  BaseRpcExceptionFilter,
  type ClientProxy,
  Ctx,
  EventPattern,
  MessagePattern,
  type MqttContext,
  MqttRecordBuilder,
  Payload,
  RpcException,
} from '@nestjs/microservices'
import { from, type Observable, tap } from 'rxjs'

/** What the application saw, in order. */
export const observed: unknown[] = []
let messages = 0

/** Another run begins. */
export function forgetObserved(): void {
  observed.length = 0
  messages = 0
}

export const OTHERS = 'OTHER_SERVICES'

@Injectable({ scope: Scope.REQUEST })
class PerMessage {
  readonly number: number

  constructor() {
    messages += 1
    this.number = messages
  }
}

@Injectable()
class NoteInterceptor implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    observed.push(['before', context.getHandler().name])
    return next.handle().pipe(tap(value => observed.push(['after', value])))
  }
}

@Catch()
class NoteFilter extends BaseRpcExceptionFilter {
  override catch(exception: Error, host: ArgumentsHost): Observable<unknown> {
    const context: MqttContext = host.switchToRpc().getContext()
    observed.push(['filter', exception.message, context.getTopic()])
    if (exception instanceof RpcException) return super.catch(exception, host)
    return super.catch(new RpcException({ status: 'failed' }), host)
  }
}

/** Written for the built-in transport: nothing in it knows of this package. */
@Controller()
@UseInterceptors(NoteInterceptor)
@UseFilters(NoteFilter)
class ColdChainController {
  constructor(
    @Inject(PerMessage) private readonly perMessage: PerMessage,
    @Inject(OTHERS) private readonly others: ClientProxy,
  ) {}

  @EventPattern<string>('trucks/+/temperature')
  onTemperature(@Payload() reading: { celsius: number }, @Ctx() context: MqttContext) {
    const packet = context.getPacket()
    const { topic, retain, properties } = packet
    observed.push([
      'event',
      this.perMessage.number,
      reading,
      topic,
      retain,
      properties?.userProperties?.trace,
    ])
    if (reading.celsius <= 5) return undefined
    const alarm = new MqttRecordBuilder(reading).setQoS(1).setRetain(true).build()
    return this.others.emit('alarms/7', alarm)
  }

  @EventPattern<string>('broken')
  onBroken(): never {
    throw new Error('a bug')
  }

  @MessagePattern('trucks/+/limit')
  limit(@Payload() wanted: unknown, @Ctx() context: MqttContext) {
    return { celsius: 5, wanted, topic: context.getTopic(), number: this.perMessage.number }
  }

  @MessagePattern('sum')
  sum(@Payload() values: number[]): number {
    return values.reduce((total, value) => total + value, 0)
  }

  @MessagePattern('relay')
  relay(@Payload() values: number[]): Observable<number> {
    return this.others.send('sum', new MqttRecordBuilder(values).setQoS(1).build())
  }

  @MessagePattern('several')
  several(@Payload() values: number[]): Observable<number> {
    return from(values)
  }

  @MessagePattern('refused')
  refuse(): never {
    throw new RpcException({ code: 'TOO_WARM' })
  }

  @MessagePattern('crashes')
  async crash(): Promise<never> {
    throw new Error('a bug')
  }
}

/** The one application, with the imports of its transport and its client. */
export function legacyModule(imports: DynamicModule[]): Type {
  @Module({ imports, controllers: [ColdChainController], providers: [PerMessage] })
  class LegacyModule {}
  return LegacyModule
}
