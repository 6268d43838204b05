// Compares the public types of every entry point with the reports in etc/, so that a change is seen in a review.
//   npm run api             writes the reports
//   npm run api -- --check  fails when one is out of date
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Extractor, ExtractorConfig } from '@microsoft/api-extractor'
import { ENTRY_POINTS } from './entry-points.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const SILENT = { logLevel: 'none' }
const isCheck = process.argv.includes('--check')

for (const [name, module] of Object.entries(ENTRY_POINTS)) {
  const report = `nestjs-mqtt${name.slice(1).replace('/', '-')}.api.md`
  const { apiReportChanged, errorCount } = extract(module, report)
  if (errorCount > 0 || (isCheck && apiReportChanged)) {
    console.error(`etc/${report} is out of date: run "npm run api" and commit it`)
    process.exitCode = 1
  } else console.log(`etc/${report} ${apiReportChanged ? 'was updated' : 'is up to date'}`)
}

function extract(module, report) {
  const reportFolder = join(ROOT, 'etc')
  const reportTempFolder = join(ROOT, 'node_modules/.cache/api')
  for (const folder of [reportFolder, reportTempFolder]) mkdirSync(folder, { recursive: true })
  const config = ExtractorConfig.prepare({
    configObject: {
      projectFolder: ROOT,
      mainEntryPointFilePath: join(ROOT, `dist/esm/${module}.d.ts`),
      compiler: { tsconfigFilePath: join(ROOT, 'tsconfig.build.json') },
      apiReport: { enabled: true, reportFileName: report, reportFolder, reportTempFolder },
      messages: {
        compilerMessageReporting: { default: { logLevel: 'error' } },
        extractorMessageReporting: {
          default: SILENT,
          'ae-forgotten-export': { logLevel: 'warning' },
        },
        tsdocMessageReporting: { default: SILENT },
      },
    },
    configObjectFullPath: undefined,
    packageJsonFullPath: join(ROOT, 'package.json'),
  })
  return Extractor.invoke(config, {
    localBuild: !isCheck,
    messageCallback: message => {
      // A type that the public ones name and users cannot import; often one that only this package makes.
      if (message.messageId === 'ae-forgotten-export' && !isCheck)
        console.log(`not exported: ${message.text}`)
      message.handled = message.logLevel !== 'error'
    },
  })
}
