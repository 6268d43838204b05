import {
  type ArgumentsHost,
  type CallHandler,
  type CanActivate,
  Catch,
  type ExecutionContext,
  Injectable,
  type NestInterceptor,
  type PipeTransform,
} from '@nestjs/common'
import { BaseRpcExceptionFilter, RpcException } from '@nestjs/microservices'
import { type Observable, tap } from 'rxjs'
import type { MqttContext } from '../../src/index.js'

/** What the parts of Nest's pipeline below, and the handlers of a spec, have noted. */
export const calls: unknown[] = []

const topicOf = (host: ArgumentsHost): string => host.switchToRpc().getContext<MqttContext>().topic

/** Refuses topics that end with `/forbidden`. */
@Injectable()
export class TopicGuard implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    calls.push(`guard of ${context.getClass().name}`)
    return !topicOf(context).endsWith('/forbidden')
  }
}

@Injectable()
export class NoteInterceptor implements NestInterceptor {
  intercept(_context: ExecutionContext, next: CallHandler): Observable<unknown> {
    calls.push('before')
    return next.handle().pipe(tap(() => calls.push('after')))
  }
}

@Injectable()
export class PlusOnePipe implements PipeTransform {
  transform(value: unknown): number {
    if (typeof value !== 'number') throw new RpcException('a number is needed')
    return value + 1
  }
}

@Catch(RpcException)
export class NoteFilter extends BaseRpcExceptionFilter {
  override catch(exception: RpcException, host: ArgumentsHost): Observable<unknown> {
    calls.push(`filter ${exception.message} ${topicOf(host)}`)
    return super.catch(exception, host)
  }
}
