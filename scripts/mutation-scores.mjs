// The table of mutation scores in CONTRIBUTING.md.

const NOTICED = ['Killed', 'Timeout']
const MISSED = ['Survived', 'NoCoverage']
const START = '<!-- mutation scores: written by npm run mutation -->'
const END = '<!-- end of mutation scores -->'

/** @param mutants as Stryker returns them; those that do not compile or are ignored do not count */
export function scoreOf(mutants) {
  const count = statuses => mutants.filter(({ status }) => statuses.includes(status)).length
  const killed = count(NOTICED)
  const total = killed + count(MISSED)
  return { killed, total, percent: total === 0 ? '0.0' : ((100 * killed) / total).toFixed(1) }
}

/** @returns the page with the row of this folder replaced or added, in alphabetical order */
export function withScore(page, folder, { killed, total, percent }) {
  const start = page.indexOf(START)
  const end = page.indexOf(END)
  if (start < 0 || end < start)
    throw new Error(`the page has no place for the scores between "${START}" and "${END}"`)
  const rows = page
    .slice(start, end)
    .split('\n')
    .filter(line => line.startsWith('| `'))
  const name = folder === '.' ? 'src/core/*.ts' : `src/core/${folder}`
  const row = `| \`${name}\` | ${total} | ${killed} | ${percent} % |`
  const others = rows.filter(line => !line.startsWith(`| \`${name}\` |`))
  const table = ['| Folder | changes | noticed | score |', '|---|---|---|---|', ...[...others, row].sort()]
  return `${page.slice(0, start)}${START}\n${table.join('\n')}\n${page.slice(end)}`
}
