// Charts as SVG, readable on a light and on a dark background.
import { formatted, isMoreBetter, mainFigureOf, SUBJECT_NAMES } from './row.mjs'

const COLOURS = { ours: '#e0234e', mqtt: '#6f7f95', builtIn: '#9aa7b8', floor: '#c7ced8' }
const STYLE = `<style>
  text { font: 12px system-ui, sans-serif; fill: #333 }
  .title { font-weight: 600; font-size: 14px }
  .value { font-size: 10px }
  .axis { stroke: #999; stroke-width: 1 }
  @media (prefers-color-scheme: dark) { text { fill: #ddd } }
</style>`
const escaped = text => text.replace(/[&<>"]/g, sign => `&#${sign.charCodeAt(0)};`)
const text = (x, y, value, extra = '') => `<text x="${x}" y="${y}" ${extra}>${escaped(value)}</text>`

const svg = (width, height, parts) =>
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img">\n${STYLE}\n${parts.join('\n')}\n</svg>\n`

const WIDTH = 860
const LABEL = 330
const BAR = 12

/** For each row, one bar per subject with the main figure of the row; the longest bar of a row has the full width. */
export function barsOf(title, rows) {
  const parts = [text(8, 22, title, 'class="title"')]
  let y = 40
  for (const { name, figures } of rows) {
    const figure = mainFigureOf(figures)
    const subjects = Object.keys(SUBJECT_NAMES).filter(subject => Number.isFinite(figures[subject]?.[figure]))
    const most = Math.max(...subjects.map(subject => figures[subject][figure]))
    parts.push(
      text(8, y + 10, name),
      text(
        LABEL - 8,
        y + 10,
        isMoreBetter(figure) ? '→ more is better' : '← less is better',
        'class="value" text-anchor="end"',
      ),
    )
    for (const subject of subjects) {
      const value = figures[subject][figure]
      const width = Math.max(1, ((WIDTH - LABEL - 190) * value) / most)
      parts.push(
        `<rect x="${LABEL}" y="${y}" width="${width.toFixed(1)}" height="${BAR - 2}" fill="${COLOURS[subject]}"/>`,
        text(
          LABEL + width + 6,
          y + 9,
          `${SUBJECT_NAMES[subject]} ${formatted(figure, value)}`,
          'class="value"',
        ),
      )
      y += BAR
    }
    y += 10
  }
  return svg(WIDTH, y, parts)
}

const PLOT = { width: 270, height: 150, left: 46, top: 40, gap: 20 }

/** One plot per row with `points`: cost per message on a logarithmic axis. */
export function plotsOf(title, rows) {
  const perLine = 2
  const cell = { width: PLOT.left + PLOT.width + PLOT.gap, height: PLOT.top + PLOT.height + 46 }
  const parts = [text(8, 22, title, 'class="title"')]
  rows.forEach(({ name, points }, index) => {
    const left = (index % perLine) * cell.width + PLOT.left
    const top = Math.floor(index / perLine) * cell.height + PLOT.top + 20
    const most = Math.max(...points.map(({ micros }) => micros)) * 1.15
    const [least, largest] = [points[0].x, points.at(-1).x].map(Math.log10)
    const at = ({ x, micros }) => [
      left + (PLOT.width * (Math.log10(x) - least)) / (largest - least || 1),
      top + PLOT.height * (1 - micros / most),
    ]
    const bottom = top + PLOT.height
    parts.push(
      text(left, top - 8, name),
      `<path class="axis" fill="none" d="M${left} ${top}V${bottom}H${left + PLOT.width}"/>`,
      text(left - 4, top + 10, `${most.toFixed(most < 10 ? 1 : 0)} µs`, 'class="value" text-anchor="end"'),
      text(left - 4, bottom, '0', 'class="value" text-anchor="end"'),
      `<polyline fill="none" stroke="${COLOURS.ours}" stroke-width="2" points="${points
        .map(point =>
          at(point)
            .map(value => value.toFixed(1))
            .join(','),
        )
        .join(' ')}"/>`,
    )
    for (const point of points) {
      const [x, y] = at(point)
      parts.push(
        `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="3" fill="${COLOURS.ours}"/>`,
        text(x.toFixed(1), bottom + 14, point.x.toLocaleString('en'), 'class="value" text-anchor="middle"'),
      )
    }
  })
  return svg(cell.width * perLine, Math.ceil(rows.length / perLine) * cell.height + 20, parts)
}
