import { expectTypeOf, it } from 'vitest'
import type { MqttHealth } from '../../src/index.js'

type Data = Record<string, unknown>
type WithoutStatus<T> = { [K in keyof T]: K extends 'status' ? never : T[K] }

/** `HealthIndicatorSession` of `@nestjs/terminus` 11 and 12. */
interface Indicator {
  up<T extends Data>(data?: T & WithoutStatus<T>): { readonly mqtt: { status: 'up' } & T }
  down<T extends Data>(data?: T & WithoutStatus<T>): { readonly mqtt: { status: 'down' } & T }
}

declare const health: MqttHealth
declare const indicator: Indicator

it('is accepted by an indicator of @nestjs/terminus, unchanged and spread', () => {
  expectTypeOf(indicator.up(health).mqtt.reasons).toEqualTypeOf<readonly string[]>()
  expectTypeOf(indicator.down({ ...health }).mqtt.state).toEqualTypeOf<'up' | 'degraded' | 'down'>()
  // @ts-expect-error terminus keeps `status` for itself
  indicator.up({ ...health, status: 'up' })
})
