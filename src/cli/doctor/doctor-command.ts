import { CliError, type CliHost } from '../cli-host.js'
import { Examination } from './examination.js'
import { examine } from './examine.js'
import { type DoctorReport, reportOf, reportOfFailure, textOf } from './report.js'
import { NoConnection, Target, type TargetOptions } from './target.js'

export interface DoctorArguments {
  readonly url: string | undefined
  readonly isJson: boolean
  readonly timeout: string | undefined
  readonly prefix: string | undefined
  readonly username: string | undefined
  readonly ca: string | undefined
  readonly cert: string | undefined
  readonly key: string | undefined
  readonly servername: string | undefined
}

const DEFAULT_SECONDS = 30
const MIN_SECONDS = 5
const MAX_SECONDS = 600

/** @returns the exit code. @throws CliError, MqttError for wrong arguments */
export async function runDoctor(given: DoctorArguments, host: CliHost): Promise<number> {
  const timeoutMs = timeoutOf(given.timeout)
  const prefix = prefixOf(given.prefix)
  const options = targetOptions(given, host.env ?? {})
  const report = await reportOn(options, prefix, timeoutMs)
  if (given.isJson) await host.out(`${JSON.stringify(report, undefined, 2)}\n`)
  else if (report.error === null) await host.out(textOf(report))
  else await host.error(`nestjs-mqtt: ${report.error.message}\n`)
  return report.exitCode
}

async function reportOn(options: TargetOptions, prefix: string, timeoutMs: number): Promise<DoctorReport> {
  const startMs = performance.now()
  const duration = (): number => Math.round(performance.now() - startMs)
  const noTraffic = { packetsOut: 0, bytesOut: 0, packetsIn: 0, bytesIn: 0 }
  let target: Target
  try {
    target = await Target.of(options)
  } catch (error) {
    if (!(error instanceof NoConnection)) throw error
    return reportOfFailure(error, {
      target: 'unknown',
      durationMs: duration(),
      traffic: noTraffic,
      leftBehind: [],
    })
  }
  const interrupt = new AbortController()
  const onSignal = (): void => interrupt.abort()
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal)
  const examination = new Examination(target, prefix, timeoutMs, interrupt.signal)
  const run = (leftBehind: readonly string[]) => ({
    target: target.name,
    durationMs: duration(),
    traffic: examination.traffic,
    leftBehind,
  })
  try {
    const examined = await examine(examination, options)
    return reportOf(examined, run(await examination.cleanUp()))
  } catch (error) {
    if (!(error instanceof NoConnection)) throw error
    return reportOfFailure(error, run([]))
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
  }
}

function targetOptions(
  { url: argument, username: name, ca, cert, key, servername }: DoctorArguments,
  env: NodeJS.ProcessEnv,
): TargetOptions {
  const url = argument ?? env['MQTT_URL']
  if (url === undefined || url === '')
    throw new CliError(
      'the URL of the broker is missing; pass it, such as mqtt://localhost:1883, or set MQTT_URL',
    )
  const username = name ?? env['MQTT_USERNAME']
  const password = env['MQTT_PASSWORD']
  const passphrase = env['MQTT_PASSPHRASE']
  return {
    url,
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(passphrase === undefined ? {} : { passphrase }),
    ...(ca === undefined ? {} : { caPath: ca }),
    ...(cert === undefined ? {} : { certPath: cert }),
    ...(key === undefined ? {} : { keyPath: key }),
    ...(servername === undefined ? {} : { servername }),
  }
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
