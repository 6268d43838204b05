import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const RESULTS = fileURLToPath(new URL('../../../bench/results/staleness.json', import.meta.url))
const NAMES = { ours: 'nestjs-mqtt', mqtt: 'mqtt', paho: 'paho-mqtt (Python)' }

/** The age of 99 % of the messages on a link of 50 KB/s under ten times its load, in seconds. */
export default {
  watch: [RESULTS],
  load() {
    const { ages } = JSON.parse(readFileSync(RESULTS, 'utf8'))
    const rows = ages.filter(row => row.link === '50KB' && row.load === '10x' && row.transport === 'tcp')
    const bars = Object.entries(NAMES).map(([subject, name]) => {
      const { p99Ms } = rows.find(row => row.subject === subject)
      return { name, isOurs: subject === 'ours', seconds: p99Ms / 1_000 }
    })
    const longest = Math.max(...bars.map(({ seconds }) => seconds))
    return bars.map(bar => ({ ...bar, share: bar.seconds / longest, text: `${bar.seconds.toFixed(1)} s` }))
  },
}
