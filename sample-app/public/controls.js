import { post } from './post.js'

/** Without a click for this long, the page throttles the links by itself, so that who only looks sees it too. */
const PATIENCE_S = 20
const DEFAULT_KB = 5

const BUSY = { 'restart-broker': 'isRestarting', garbage: 'isFlooding', 'kill-truck': 'isDead' }

/** Connects the buttons. Returns a function that updates them. */
export function createControls() {
  const form = document.querySelector('#throttle')
  const modes = [...document.querySelectorAll('[data-mode]')]
  const actions = [...document.querySelectorAll('[data-action]')]
  form.addEventListener('submit', event => {
    event.preventDefault()
    void throttle(Number(form.elements.rate.value))
  })
  for (const button of modes.filter(({ type }) => type === 'button'))
    button.addEventListener('click', () => post('demo/link', { mode: button.dataset.mode }))
  for (const button of actions) button.addEventListener('click', () => post(`demo/${button.dataset.action}`))
  const patience = waitForClick()
  return state => {
    patience(state.condition)
    for (const button of modes)
      button.setAttribute('aria-pressed', String(button.dataset.mode === state.condition.mode))
    for (const button of actions) {
      const { action } = button.dataset
      button.disabled = state[BUSY[action]] || (action === 'restart-broker' && !state.canRestart)
    }
    write('#link-state', linkText(state.condition))
  }
}

function throttle(kilobytes) {
  return post('demo/link', { mode: 'throttled', bytesPerSecond: kilobytes * 1_000 })
}

/** Counts down until nobody has clicked for a while, once. */
function waitForClick() {
  const hint = document.querySelector('#hint')
  let untilMs = Date.now() + PATIENCE_S * 1_000
  const stop = text => {
    untilMs = undefined
    hint.hidden = text === undefined
    if (text !== undefined) hint.textContent = text
  }
  document.addEventListener('click', () => stop())
  document.addEventListener('submit', () => stop())
  return condition => {
    if (untilMs === undefined) return
    if (condition.mode !== 'free') return stop()
    const seconds = Math.ceil((untilMs - Date.now()) / 1_000)
    hint.hidden = false
    hint.textContent = `If you click nothing, the links are throttled to ${DEFAULT_KB} KB/s in ${Math.max(0, seconds)} s.`
    if (seconds > 0) return
    stop(
      `Nobody clicked for ${PATIENCE_S} s, so the links carry ${DEFAULT_KB} KB/s now. “Heal” frees them again.`,
    )
    void throttle(DEFAULT_KB)
  }
}

function linkText({ mode, bytesPerSecond }) {
  if (mode === 'throttled') return `The three links carry ${bytesPerSecond / 1_000} KB/s each.`
  if (mode === 'stalled') return 'The three links carry nothing; the connections stay open.'
  if (mode === 'closed') return 'The three links are cut.'
  return 'The three links are free.'
}

function write(selector, text) {
  const element = document.querySelector(selector)
  if (element.textContent !== text) element.textContent = text
}
