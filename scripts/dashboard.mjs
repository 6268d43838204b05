// npm run dashboard: writes the Grafana dashboard.
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { dashboardText, FILE } from './dashboard/dashboard.mjs'

writeFileSync(FILE, dashboardText())
console.log(fileURLToPath(FILE))
