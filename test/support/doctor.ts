import { main } from '../../src/cli/main.js'

/** Runs `nestjs-mqtt doctor` in this process, and returns what it writes. */
export async function runDoctor(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const written = { out: '', error: '' }
  const code = await main(['doctor', ...args], {
    cwd: '/',
    env,
    load: () => Promise.reject(new Error('nothing is loaded')),
    out: async text => {
      written.out += text
    },
    error: async text => {
      written.error += text
    },
  })
  return { code, ...written }
}

/** Levels of the findings in the output of `--json`, by id. */
export const levelsOf = (out: string): Record<string, string> =>
  Object.fromEntries(
    JSON.parse(out).findings.map(({ id, level }: { id: string; level: string }) => [id, level]),
  )
