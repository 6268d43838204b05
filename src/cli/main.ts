import { parseArgs } from 'node:util'
import { isMqttError } from '../core/errors.js'
import { CliError, type CliHost } from './cli-host.js'
import { listStore } from './store-command.js'

const USAGE = `nestjs-mqtt asyncapi <module file> [options]

Writes an AsyncAPI 3.1 document of the MQTT handlers of a Nest application. It needs no broker and creates no instances:
the application is loaded in preview mode.

  <module file>         compiled file that exports the root module, such as dist/app.module.js
  --out <file>          file to write, as YAML if it ends with .yaml or .yml; otherwise JSON on the standard output
  --options <file>      compiled file that exports the options of createAsyncApiDocument(), as "asyncApi" or as the default export
  --export <name>       name of the exported module, if the file exports several
  --title <text>        title of the document; by default the name in package.json
  --api-version <text>  version of the document; by default the version in package.json
  --help                shows this text

nestjs-mqtt store <file> [--json]

Lists the contents of a file of sqliteStore(): topics, messages, bytes, ages, outcomes and damaged records. It changes nothing,
and works while a service uses the file.

nestjs-mqtt doctor <url> [options]

Checks what a broker can do, and what to set because of it. It opens about 50 connections, publishes about 300 small messages and
one of 256 KiB to private topics, and removes what it leaves on the broker, also after Ctrl-C.

  <url>               address of the broker, such as mqtts://broker.example:8883; by default MQTT_URL of the environment
  --username <name>   user name; by default MQTT_USERNAME, or the user of the URL
  --ca, --cert, --key <file>   certificates and key in PEM format (caPath, certPath, keyPath)
  --servername <name> host name that the certificate must have, if it is not that of the URL
  --alpn <names>      protocols for ALPN, separated by commas
  --proxy <url>       URL of a proxy; by default MQTT_PROXY
  --local-address <ip> local address to connect from
  --header <text>     header of the WebSocket handshake, such as "x-device: 7"; repeatable. MQTT_HEADERS has further ones, one a line
  --auth-method <name> method of enhanced authentication, without a challenge; MQTT_AUTH_DATA is its data
  --prefix <topic>    where the private topics are; by default nestjs-mqtt/doctor
  --timeout <seconds> time limit, 5 to 600; by default 30
  --json              writes the result as JSON

The password is MQTT_PASSWORD of the environment or that of the URL, and the passphrase of the key is MQTT_PASSPHRASE. Others can
read the arguments of a process: pass a secret header or the password of a proxy in the environment.
Exit codes: 0 no warnings, 1 wrong arguments, 2 no connection, 3 warnings, 4 the time limit ended the run, 130 Ctrl-C.
`

const MISSING = {
  asyncapi:
    'the module file is missing; specify the compiled file of the root module, such as dist/app.module.js',
  store:
    'the file of the store is missing; specify the path that you passed to sqliteStore(), such as alarms.db',
}

const AS_URL = 'pass the address as a URL, such as mqtt://localhost:1883'
const ALWAYS_VERIFIED =
  'certificates are always verified; pass the certificate of the authority with --ca, or another host name with --servername'

/** What to do in place of an option that other MQTT commands have. */
const INSTEAD: Readonly<Record<string, string>> = {
  '--password':
    'others can read the arguments of a process; set MQTT_PASSWORD in the environment, or pass it in the URL',
  '--passphrase': 'others can read the arguments of a process; set MQTT_PASSPHRASE in the environment',
  '--user': 'use --username',
  '--cafile': 'use --ca',
  '--insecure': ALWAYS_VERIFIED,
  '--host': AS_URL,
  '--hostname': AS_URL,
  '--port': AS_URL,
  '--url': 'pass the URL without an option name',
}
const SHORT: Readonly<Record<string, string>> = {
  '-P': '--password',
  '-u': '--user',
  '-h': '--host',
  '-p': '--port',
  '-L': '--url',
}

/** Runs the command line. Returns the exit code. */
export async function main(args: readonly string[], host: CliHost): Promise<number> {
  try {
    return await run(args, host)
  } catch (error) {
    if (!(error instanceof CliError) && !isMqttError(error)) throw error
    await host.error(`nestjs-mqtt: ${error.message}\n`)
    return 1
  }
}

async function run(args: readonly string[], host: CliHost): Promise<number> {
  const { values, positionals } = parsed(args)
  const [command, file, ...others] = positionals
  const isJson = values.json === true
  if (values.help === true) {
    await host.out(USAGE)
    return 0
  }
  if (command !== 'asyncapi' && command !== 'store' && command !== 'doctor')
    throw new CliError(
      `${command === undefined ? 'a command is missing' : `unknown command "${command}"`}; use: nestjs-mqtt asyncapi <module file>, nestjs-mqtt store <file>, nestjs-mqtt doctor <url>, or --help`,
    )
  if (others.length > 0) throw new CliError(`unexpected argument "${others[0]}"; see --help`)
  if (command === 'doctor') {
    const { 'local-address': localAddress, 'auth-method': authMethod, header: headers, ...rest } = values
    // Loads the client, which the other commands do not need.
    const { runDoctor } = await import('./doctor/doctor-command.js')
    return runDoctor({ ...rest, url: file, isJson, localAddress, authMethod, headers }, host)
  }
  if (file === undefined) throw new CliError(MISSING[command])
  if (command === 'store') await listStore({ file, isJson }, host)
  else {
    const { out, options, export: exportName, title, 'api-version': version } = values
    // Needs Nest, which a user of the client alone does not have.
    const { writeAsyncApi } = await import('./mqtt.asyncapi-command.js')
    await writeAsyncApi({ file, out, options, exportName, title, version }, host)
  }
  return 0
}

function parsed(args: readonly string[]) {
  const text = { type: 'string' } as const
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        out: text,
        options: text,
        export: text,
        title: text,
        'api-version': text,
        timeout: text,
        prefix: text,
        username: text,
        ca: text,
        cert: text,
        key: text,
        servername: text,
        alpn: text,
        proxy: text,
        'local-address': text,
        'auth-method': text,
        header: { ...text, multiple: true },
        help: { type: 'boolean' },
        json: { type: 'boolean' },
      },
    })
  } catch (error) {
    throw new CliError(`${describeArguments(error)}; see --help`)
  }
}

/** Without the value of the option, which may be secret. */
function describeArguments(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  const name = /^Unknown option '(-[^'=]+)/.exec(message)?.[1]
  if (name === undefined) return message
  const instead = INSTEAD[SHORT[name] ?? name]
  return `unknown option "${name}"${instead === undefined ? '' : `; ${instead}`}`
}
