import { Charts } from './charts.js'
import { createControls } from './controls.js'
import { createLanes } from './lanes.js'
import { showTrucks } from './trucks.js'

const about = await (await fetch('demo')).json()
const version = about.protocolVersion === 5 ? '5' : '3.1.1'
document.querySelector('#broker').textContent =
  `${about.broker} · MQTT ${version}${about.isEmbedded ? ' · embedded' : ''}`

const charts = new Charts(
  document.querySelector('#age-chart'),
  document.querySelector('#drop-chart'),
  about.compared,
)
const updateLanes = createLanes(document.querySelector('#lanes'), about.compared)
const updateControls = createControls()
// What is drawn, for those who want the numbers: `demo.charts.ages` in the console.
globalThis.demo = { charts }

const events = new EventSource('demo/events')
events.addEventListener('history', ({ data }) => {
  charts.clear()
  charts.add(JSON.parse(data))
})
events.addEventListener('message', ({ data }) => {
  const state = JSON.parse(data)
  globalThis.demo.state = state
  charts.add([state.sample])
  updateLanes(state)
  updateControls(state)
  showService(state.service)
  showList('#events', state.events.slice(-7).reverse(), ({ text }) => text)
  write(
    '#alarms-promised',
    Object.values(state.promised).reduce((sum, count) => sum + count, 0),
  )
  write('#alarms-outstanding', state.outstanding)
})
events.addEventListener('error', () => showService('gone'))

new EventSource('events').addEventListener('message', ({ data }) => {
  const { trucks, alarms } = JSON.parse(data)
  showTrucks(trucks)
  write('#alarms-total', alarms.total)
  write('#alarms-dead', alarms.deadLettered)
  const hasInstances = new Set(alarms.latest.map(({ handledBy }) => handledBy)).size > 1
  showList('#alarms', alarms.latest.slice(0, 7), ({ truckId, kind, handledBy }) => {
    const what = `${truckId}: ${kind === 'door-open' ? 'door opened' : 'door closed'}`
    return hasInstances ? `${what} (${handledBy})` : what
  })
})

function showService(status) {
  const isGood = status === 'connected'
  document.querySelector('#service-dot').classList.toggle('is-good', isGood)
  write('#service-state', isGood ? 'The service is connected' : `The service is ${status}`)
}

/** Replaces a list only if it has changed, so that screen readers do not repeat it. */
function showList(selector, entries, textOf) {
  const list = document.querySelector(selector)
  const key = entries.map(entry => `${entry.atMs}${textOf(entry)}`).join('\n')
  if (entries.length === 0 || list.dataset.key === key) return
  list.dataset.key = key
  list.replaceChildren(...entries.map(entry => lineOf(entry.atMs, textOf(entry))))
}

function lineOf(atMs, text) {
  const line = document.createElement('li')
  const time = document.createElement('time')
  time.textContent = new Date(atMs).toLocaleTimeString('en-GB')
  const words = document.createElement('span')
  words.textContent = text
  line.append(time, words)
  return line
}

function write(selector, value) {
  const element = document.querySelector(selector)
  const text = String(value)
  if (element.textContent !== text) element.textContent = text
}
