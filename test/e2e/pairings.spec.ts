import 'reflect-metadata'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Controller } from '@nestjs/common'
import { EventPattern, MessagePattern, Payload, RpcException } from '@nestjs/microservices'
import { concat, EMPTY, from, NEVER, type Observable, of, scan } from 'rxjs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  type Ask,
  type Asker,
  builtInClient,
  ourProxy,
  ourProxyForBuiltIn,
  ourRequest,
  ourStream,
  startBuiltIn,
  VERSIONS,
  type Version,
} from '../support/askers.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'
import { startMicroservice } from '../support/nest-app.js'

const MEGABYTE = 1_048_576
const AT_ONCE = 1_000

const told: unknown[] = []

@Controller()
class RespondingController {
  @MessagePattern('ask/one')
  one(@Payload() value: unknown): unknown {
    return { took: value }
  }

  @MessagePattern('ask/three')
  three(@Payload() first: number): Observable<number> {
    return of(first, first + 1, first + 2)
  }

  @MessagePattern('ask/sums')
  sums(@Payload() values: number[]): Observable<number> {
    return from(values).pipe(scan((sum, value) => sum + value, 0))
  }

  @MessagePattern('ask/all')
  all(): Observable<number> {
    return concat(of(1), NEVER)
  }

  @MessagePattern('ask/nothing')
  nothing(): Observable<never> {
    return EMPTY
  }

  @MessagePattern('ask/throws')
  throws(): never {
    throw new Error('not for others to read')
  }

  @MessagePattern('ask/refuses')
  refuses(): never {
    throw new RpcException({ code: 'TOO_WARM', limit: 5 })
  }

  @MessagePattern('ask/null')
  none(): null {
    return null
  }

  @MessagePattern('ask/echo')
  echo(@Payload() value: unknown): unknown {
    return value
  }

  @EventPattern('tell/it')
  onTold(@Payload() value: unknown): void {
    told.push(value)
  }
}

@Controller()
class GeneratingController extends RespondingController {
  @MessagePattern('ask/generated')
  async *generated(@Payload() first: number): AsyncGenerator<number> {
    yield first
    yield first + 1
    yield first + 2
  }
}

let broker: Mosquitto
beforeAll(async () => {
  broker = await Mosquitto.start()
})
afterAll(() => broker.stop())

const onOurs = async (protocolVersion: Version) => {
  const { app } = await startMicroservice(
    { url: broker.url, protocolVersion },
    { controllers: [GeneratingController] },
  )
  return app
}
const onBuiltIn = (protocolVersion: Version) =>
  startBuiltIn(broker.url, protocolVersion, [RespondingController])

interface Pairing {
  readonly asker: string
  readonly ask: Ask
  readonly responder: string
  readonly start: (version: Version) => Promise<{ close(): Promise<unknown> }>
  readonly version: Version
  /** Only the last of several responses arrives. */
  readonly hearsLast: boolean
}

const OURS = { responder: 'ours', start: onOurs, hearsLast: false }
const BUILT_IN = { responder: 'built-in', start: onBuiltIn, hearsLast: false }
const PAIRINGS: readonly Pairing[] = VERSIONS.flatMap(version => [
  { ...OURS, asker: 'MqttService.request', ask: ourRequest, version, hearsLast: true },
  { ...OURS, asker: 'MqttService.requestStream', ask: ourStream(), version },
  { ...OURS, asker: 'MqttClientProxy', ask: ourProxy, version },
  { ...OURS, asker: 'MqttClientProxy for a built-in peer', ask: ourProxyForBuiltIn, version },
  { ...OURS, asker: 'built-in client', ask: builtInClient, version },
  { ...BUILT_IN, asker: 'MqttClientProxy for a built-in peer', ask: ourProxyForBuiltIn, version },
  { ...BUILT_IN, asker: 'requestStream in the envelope', ask: ourStream('nest'), version },
])

describe.each(PAIRINGS)('$asker sends requests to $responder on MQTT version $version', pairing => {
  let app: { close(): Promise<unknown> }
  let asker: Asker
  beforeAll(async () => {
    app = await pairing.start(pairing.version)
    asker = await pairing.ask(broker.url, pairing.version)
  })
  afterAll(async () => {
    await asker.close()
    await app.close()
  })

  const heard = (...values: unknown[]) => ({ values, error: undefined })
  const several = (...values: unknown[]) => heard(...(pairing.hearsLast ? values.slice(-1) : values))

  it('one value', async () => {
    expect(await asker.ask('ask/one', { celsius: 4 })).toEqual(heard({ took: { celsius: 4 } }))
  })

  it('three values of an Observable', async () => {
    expect(await asker.ask('ask/three', 7)).toEqual(several(7, 8, 9))
  })

  it('running sums of a stream of numbers', async () => {
    expect(await asker.ask('ask/sums', [1, 2, 3, 4, 5])).toEqual(several(1, 3, 6, 10, 15))
  })

  it('two services that never end, one value of each', async () => {
    if (pairing.hearsLast) return
    const second = await pairing.start(pairing.version)
    expect(await asker.take('ask/all', 2)).toEqual([1, 1])
    await second.close()
  })

  it('an Observable without a value', async () => {
    const expected = pairing.hearsLast ? heard(undefined) : heard()
    expect(await asker.ask('ask/nothing', {})).toEqual(expected)
  })

  it('null', async () => {
    expect(await asker.ask('ask/null', {})).toEqual(heard(null))
  })

  it('an error that was thrown, without its text', async () => {
    const error = { status: 'error', message: 'Internal server error' }
    expect(await asker.ask('ask/throws', {})).toEqual({ values: [], error })
  })

  it('an RpcException with an object', async () => {
    const error = { code: 'TOO_WARM', limit: 5 }
    expect(await asker.ask('ask/refuses', {})).toEqual({ values: [], error })
  })

  it('a megabyte in both directions', async () => {
    const { values, error } = await asker.ask('ask/echo', 'x'.repeat(MEGABYTE))
    expect(error).toBeUndefined()
    expect(values.map(value => String(value).length)).toEqual([MEGABYTE])
  })

  it('a thousand requests at once', async () => {
    const all = await Promise.all(
      Array.from({ length: AT_ONCE }, (_, index) => asker.ask('ask/echo', { index })),
    )
    expect(all).toEqual(Array.from({ length: AT_ONCE }, (_, index) => heard({ index })))
  })

  it('two requesters at once, each with the responses to its own requests', async () => {
    const other = await pairing.ask(broker.url, pairing.version)
    const ask = (from: Asker, who: string) =>
      Promise.all(
        Array.from({ length: 100 }, (_, index) => from.ask('ask/three', who.length * 1_000 + index)),
      )
    const [mine, others] = await Promise.all([ask(asker, 'a'), ask(other, 'bb')])
    const expected = (start: number) =>
      Array.from({ length: 100 }, (_, index) => several(start + index, start + index + 1, start + index + 2))
    expect(mine).toEqual(expected(1_000))
    expect(others).toEqual(expected(2_000))
    await other.close()
  })
})

describe.each(VERSIONS)('an async generator of this package on MQTT version %i', version => {
  it('returns its last value to MqttService.request', async () => {
    const app = await onOurs(version)
    const asker = await ourRequest(broker.url, version)
    expect(await asker.ask('ask/generated', 4)).toEqual({ values: [6], error: undefined })
    await asker.close()
    await app.close()
  })
})

describe.each([
  ['MqttService.requestStream', ourStream()],
  ['MqttClientProxy', ourProxy],
])('an async generator of this package on MQTT version 5', (name, ask) => {
  it(`sends all of its values to ${name}`, async () => {
    const app = await onOurs(5)
    const asker = await ask(broker.url, 5)
    expect(await asker.ask('ask/generated', 4)).toEqual({ values: [4, 5, 6], error: undefined })
    await asker.close()
    await app.close()
  })
})

describe('mosquitto_rr sends a request to this package', () => {
  async function ask(topic: string, payload: string): Promise<string> {
    const child = spawn('mosquitto_rr', [
      ...['-h', '127.0.0.1', '-p', String(broker.port), '-V', 'mqttv5', '-q', '1'],
      ...['-t', topic, '-e', 'responses/rr', '-m', payload],
    ])
    const chunks: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
    await once(child, 'close')
    return Buffer.concat(chunks).toString().trim()
  }

  it('and receives one response, whatever the handler returns', async () => {
    const app = await onOurs(5)
    expect(await ask('ask/one', '4')).toBe('{"took":4}')
    expect(await ask('ask/three', '7')).toBe('9')
    expect(await ask('ask/generated', '7')).toBe('9')
    expect(await ask('ask/nothing', '1')).toBe('')
    expect(await ask('ask/null', '1')).toBe('null')
    expect(await ask('ask/throws', '1')).toBe('{"status":"error","message":"Internal server error"}')
    expect(await ask('ask/refuses', '1')).toBe('{"code":"TOO_WARM","limit":5}')
    await app.close()
  })
})

describe.each(VERSIONS)('events on MQTT version %i', protocolVersion => {
  async function hearFrom(ask: Ask): Promise<unknown> {
    told.length = 0
    const asker = await ask(broker.url, protocolVersion)
    await asker.tell('tell/it', { celsius: 4 })
    await eventually(() => told.length > 0)
    await asker.close()
    return told
  }
  const EVENT = { celsius: 4 }
  const ENVELOPE = { pattern: 'tell/it', data: EVENT }

  it('this package with the envelope of the built-in transport accepts messages of both formats', async () => {
    const { app } = await startMicroservice(
      { url: broker.url, protocolVersion, envelope: 'all' },
      { controllers: [RespondingController] },
    )
    for (const ask of [builtInClient, ourProxyForBuiltIn, ourProxy, ourStream()])
      expect(await hearFrom(ask)).toEqual([EVENT])
    await app.close()
  })

  it('this package without the envelope accepts plain messages unchanged', async () => {
    const app = await onOurs(protocolVersion)
    expect(await hearFrom(ourProxy)).toEqual([EVENT])
    expect(await hearFrom(ourStream())).toEqual([EVENT])
    expect(await hearFrom(builtInClient)).toEqual([ENVELOPE])
    expect(await hearFrom(ourProxyForBuiltIn)).toEqual([ENVELOPE])
    await app.close()
  })

  it('the built-in transport accepts the envelope and plain messages', async () => {
    const app = await onBuiltIn(protocolVersion)
    for (const ask of [builtInClient, ourProxyForBuiltIn, ourProxy, ourStream()])
      expect(await hearFrom(ask)).toEqual([EVENT])
    await app.close()
  })
})
