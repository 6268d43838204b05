import { h } from 'vue'
import { data as bars } from './ages.data.js'

const CAPTION =
  'Age of data on arrival, 99th percentile, after 20 s on a link of 50 KB/s under ten times its load'

/** The bars of the benchmark on the home page. */
export const AgeFigure = () =>
  h('figure', { class: 'age-figure' }, [
    h('figcaption', CAPTION),
    h(
      'dl',
      bars.map(({ name, isOurs, share, text }) =>
        h('div', { class: { ours: isOurs } }, [
          h('dt', name),
          h('dd', [h('span', { class: 'bar', style: { width: `${share * 75}%` } }), text]),
        ]),
      ),
    ),
    h('p', h('a', { href: './freshness' }, 'How it is measured, and how it works')),
  ])
