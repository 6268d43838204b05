// One table for all rows of a run, for the console and as Markdown.
import { budgetOf, cellOf, ratioOf, SUBJECT_NAMES } from './row.mjs'

const SUBJECTS = Object.keys(SUBJECT_NAMES)
const HEAD = ['', ...Object.values(SUBJECT_NAMES), 'spread', 'ratio', 'budget', 'verdict']

function cellsOf({ name, figures, budgets, isKept }) {
  const spread = figures.ours.spread
  return [
    name,
    ...SUBJECTS.map(subject => cellOf(figures[subject])),
    spread === undefined ? '' : `${Math.round(spread * 100)} %`,
    budgets.map(ratioOf).join(', '),
    budgets.map(budgetOf).join(', '),
    budgets.length === 0 ? '' : isKept ? 'ok' : 'MISSED',
  ]
}

/** Empty columns are omitted. */
function filled(rows) {
  const cells = rows.map(cellsOf)
  const columns = HEAD.map((_, index) => index).filter(index => cells.some(row => row[index] !== ''))
  const pick = row => columns.map(index => row[index])
  return [pick(HEAD), ...cells.map(pick)]
}

export function markdownOf(rows) {
  const [head, ...lines] = filled(rows)
  const line = cells => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...lines.map(line)].join('\n')
}

export function textOf(rows) {
  const lines = filled(rows)
  const widths = lines[0].map((_, index) => Math.max(...lines.map(line => line[index].length)))
  return lines
    .map(line =>
      line
        .map((cell, index) => cell.padEnd(widths[index]))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
