import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { describe, expect, it } from 'vitest'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const FILE = `${ROOT}test/types/compiled-in-memory.ts`

/** Compiles a file that exists in memory only. @returns the first line of each error */
function errorsOf(code: string): string[] {
  const { config } = ts.readConfigFile(`${ROOT}tsconfig.json`, ts.sys.readFile)
  const { options } = ts.parseJsonConfigFileContent({ ...config, include: [], files: [FILE] }, ts.sys, ROOT)
  const host = ts.createCompilerHost({ ...options, experimentalDecorators: true })
  const { getSourceFile, fileExists } = host
  host.fileExists = path => path === FILE || fileExists(path)
  host.getSourceFile = (path, ...rest) =>
    path === FILE ? ts.createSourceFile(path, code, ts.ScriptTarget.ES2022) : getSourceFile(path, ...rest)
  const program = ts.createProgram([FILE], { ...options, noEmit: true }, host)
  return ts
    .getPreEmitDiagnostics(program, program.getSourceFile(FILE))
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n').split('\n')[0] ?? '')
}

describe('the first line of the compiler error', () => {
  it('for a wrong name in @TopicParam(contract, name) lists the parameters of the contract', () => {
    const errors = errorsOf(`
      import { defineTopic, TopicParam } from '../../src/index.js'
      const telemetry = defineTopic('devices/+deviceId/telemetry/+kind')
      export class Handlers {
        right(@TopicParam(telemetry, 'kind') _kind: string, @TopicParam('any') _any: string): void {}
        wrong(@TopicParam(telemetry, 'devceId') _id: string): void {}
      }
    `)
    expect(errors).toHaveLength(1)
    expect(errors[0]).toMatch(
      /^Argument of type '"devceId"' is not assignable to parameter of type '("deviceId" \| "kind"|"kind" \| "deviceId")'\.$/,
    )
  })
}, 60_000)
