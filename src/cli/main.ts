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
`

const MISSING = {
  asyncapi:
    'the module file is missing; specify the compiled file of the root module, such as dist/app.module.js',
  store:
    'the file of the store is missing; specify the path that you passed to sqliteStore(), such as alarms.db',
}

/** Runs the command line. Returns the exit code. */
export async function main(args: readonly string[], host: CliHost): Promise<number> {
  try {
    await run(args, host)
    return 0
  } catch (error) {
    if (!(error instanceof CliError) && !isMqttError(error)) throw error
    await host.error(`nestjs-mqtt: ${error.message}\n`)
    return 1
  }
}

async function run(args: readonly string[], host: CliHost): Promise<void> {
  const { values, positionals } = parsed(args)
  const [command, file, ...others] = positionals
  if (values.help === true) return host.out(USAGE)
  if (command !== 'asyncapi' && command !== 'store')
    throw new CliError(
      `${command === undefined ? 'a command is missing' : `unknown command "${command}"`}; use: nestjs-mqtt asyncapi <module file>, nestjs-mqtt store <file>, or --help`,
    )
  if (file === undefined) throw new CliError(MISSING[command])
  if (others.length > 0) throw new CliError(`unexpected argument "${others[0]}"; see --help`)
  if (command === 'store') return listStore({ file, isJson: values.json === true }, host)
  const { out, options, export: exportName, title, 'api-version': version } = values
  // Needs Nest, which a user of the client alone does not have.
  const { writeAsyncApi } = await import('./mqtt.asyncapi-command.js')
  await writeAsyncApi({ file, out, options, exportName, title, version }, host)
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
        help: { type: 'boolean' },
        json: { type: 'boolean' },
      },
    })
  } catch (error) {
    throw new CliError(`${error instanceof Error ? error.message : String(error)}; see --help`)
  }
}
