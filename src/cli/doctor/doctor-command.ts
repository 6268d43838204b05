import { constants } from 'node:os'
import { withoutSecrets } from '../../options/pass-through.js'
import { CliError, type CliHost } from '../cli-host.js'
import { Examination } from './examination.js'
import { examine } from './examine.js'
import { AFTER_SIGNAL, type DoctorReport, reportOf, reportOfFailure, textOf } from './report.js'
import { NoConnection, Target, type TargetOptions } from './target.js'

/** The arguments of the command as they were given. */
export interface DoctorArguments {
  readonly url?: string | undefined
  readonly isJson: boolean
  readonly timeout?: string | undefined
  readonly prefix?: string | undefined
  readonly username?: string | undefined
  readonly ca?: string | undefined
  readonly cert?: string | undefined
  readonly key?: string | undefined
  readonly servername?: string | undefined
  readonly alpn?: string | undefined
  readonly proxy?: string | undefined
  readonly localAddress?: string | undefined
  readonly authMethod?: string | undefined
  readonly headers?: readonly string[] | undefined
}

const DEFAULT_SECONDS = 30
const MIN_SECONDS = 5
const MAX_SECONDS = 600

/** @returns the exit code. @throws CliError, MqttError for wrong arguments */
export async function runDoctor(given: DoctorArguments, host: CliHost): Promise<number> {
  const timeoutMs = timeoutOf(given.timeout)
  const prefix = prefixOf(given.prefix)
  const options = targetOptions(given, host.env ?? {})
  const interruption = new Interruption()
  try {
    const report = await reportOn(options, prefix, timeoutMs, interruption)
    if (given.isJson) await host.out(`${JSON.stringify(report, undefined, 2)}\n`)
    else if (report.error === null) await host.out(textOf(report))
    else await host.error(`nestjs-mqtt: ${report.error.message}\n`)
    return report.exitCode
  } finally {
    interruption.stop()
  }
}

/** SIGINT (Ctrl-C) or SIGTERM. The second one ends the process at once. */
class Interruption {
  exitCode: number | undefined
  private readonly controller = new AbortController()

  constructor() {
    process.once('SIGINT', this.onSignal).once('SIGTERM', this.onSignal)
  }

  get signal(): AbortSignal {
    return this.controller.signal
  }

  stop(): void {
    process.off('SIGINT', this.onSignal).off('SIGTERM', this.onSignal)
  }

  private readonly onSignal = (name: NodeJS.Signals): void => {
    this.exitCode = AFTER_SIGNAL + constants.signals[name]
    this.controller.abort()
  }
}

const NO_TRAFFIC = { packetsOut: 0, bytesOut: 0, packetsIn: 0, bytesIn: 0 }

async function reportOn(
  options: TargetOptions,
  prefix: string,
  timeoutMs: number,
  interruption: Interruption,
): Promise<DoctorReport> {
  const startMs = performance.now()
  let examination: Examination | undefined
  const run = (leftBehind: readonly string[]) => ({
    target: examination?.target.name ?? withoutSecrets(options.url),
    durationMs: Math.round(performance.now() - startMs),
    traffic: examination?.traffic ?? NO_TRAFFIC,
    leftBehind,
    interruptedWith: interruption.exitCode,
  })
  try {
    examination = new Examination(await Target.of(options), prefix, timeoutMs, interruption.signal)
    const examined = await examine(examination)
    return reportOf(examined, run(await examination.cleanUp()))
  } catch (error) {
    if (!(error instanceof NoConnection)) throw error
    if (interruption.exitCode === undefined) return reportOfFailure(error, run([]))
    const message = 'a signal ended the run before there was a connection'
    return reportOfFailure({ kind: 'interrupted', message }, run([]))
  }
}

/** The options that have a value. */
function given<T extends Readonly<Record<string, unknown>>>(options: T) {
  // Seam: entries lose the types of the fields.
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>
  }
}

function targetOptions(args: DoctorArguments, env: NodeJS.ProcessEnv): TargetOptions {
  const url = args.url ?? env['MQTT_URL']
  if (url === undefined || url === '')
    throw new CliError(
      'the URL of the broker is missing; pass it, such as mqtt://localhost:1883, or set MQTT_URL',
    )
  return {
    url,
    ...given({
      username: args.username ?? env['MQTT_USERNAME'],
      password: env['MQTT_PASSWORD'],
      passphrase: env['MQTT_PASSPHRASE'],
      caPath: args.ca,
      certPath: args.cert,
      keyPath: args.key,
      servername: args.servername,
      ALPNProtocols: args.alpn?.split(','),
      localAddress: args.localAddress,
      proxy: args.proxy ?? env['MQTT_PROXY'],
      wsOptions: headersOf(url, args.headers, env['MQTT_HEADERS']),
      authentication: authenticationOf(args.authMethod, env['MQTT_AUTH_DATA']),
    }),
  }
}

function authenticationOf(method: string | undefined, data: string | undefined) {
  if (method === undefined && data !== undefined)
    throw new CliError('MQTT_AUTH_DATA is set, but the method is missing; pass it with --auth-method')
  return method === undefined ? undefined : { method, ...given({ data }) }
}

/** @throws CliError without the values, which may be secret */
function headersOf(url: string, args: readonly string[] = [], lines = '') {
  const all = [...args, ...lines.split('\n').filter(line => line.trim() !== '')]
  if (all.length === 0) return undefined
  if (!/^wss?:/i.test(url)) throw new CliError('headers need a WebSocket; use ws:// or wss://')
  const headers = all.map(line => {
    const [, name, value] = /^([\w!#$%&'*+.^`|~-]+):\s*([\x20-\x7e]*)$/.exec(line.trim()) ?? []
    if (name === undefined || value === undefined)
      throw new CliError('a header must look like "name: value", with printable ASCII characters')
    return [name, value] as const
  })
  return { headers: Object.fromEntries(headers) }
}

function timeoutOf(text: string | undefined): number {
  const seconds = text === undefined ? DEFAULT_SECONDS : Number(text)
  if (!(seconds >= MIN_SECONDS && seconds <= MAX_SECONDS))
    throw new CliError(
      `--timeout must be ${MIN_SECONDS} to ${MAX_SECONDS} seconds, but is ${JSON.stringify(text)}`,
    )
  return 1_000 * seconds
}

function prefixOf(text = 'nestjs-mqtt/doctor'): string {
  if (text === '' || /[+#\0]|^\$/.test(text) || text.endsWith('/'))
    throw new CliError(
      `--prefix must be a topic without wildcards, "$" at its start and "/" at its end, but is ${JSON.stringify(text)}`,
    )
  return text
}
