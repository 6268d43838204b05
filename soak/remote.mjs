// Calls between the conductor and its processes, over the IPC channel of `fork`.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { basename } from 'node:path'

const CALL_MS = 60_000
const END_MS = 5_000
const MOST_ERROR_TEXT = 8_192

/** Calls the methods of an object for the parent process, and ends with it. */
export function serve(target) {
  process.on('message', async ({ id, method, args }) => {
    try {
      const result = await target[method](...args)
      if (process.connected) process.send({ id, result })
    } catch (error) {
      if (process.connected) process.send({ id, error: String(error?.stack ?? error) })
    }
  })
  process.on('disconnect', () => process.exit(process.exitCode ?? 0))
  process.send({ ready: true })
}

/** Opens the client of this process, for the role that the parent process gave it, and serves calls. */
export async function begin(Kind) {
  const actor = new Kind(JSON.parse(process.argv[2]))
  await actor.open()
  serve(actor)
}

/** A process that serves calls. */
export class Remote {
  calls = new Map()
  next = 0
  errors = ''
  isExpectedToEnd = false

  constructor(file, role, { execArgv = [], onLost = () => {}, callMs = CALL_MS } = {}) {
    this.callMs = callMs
    this.child = fork(file, [JSON.stringify(role)], { execArgv, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
    this.child.stderr.on('data', text => {
      this.errors = (this.errors + text).slice(-MOST_ERROR_TEXT)
    })
    this.closed = once(this.child, 'close')
    this.ready = new Promise((resolve, reject) => {
      this.child.on('message', message => (message.ready ? resolve() : this.settle(message)))
      this.child.once('exit', (code, signal) => {
        const error = new Error(`${basename(file)} ended with ${signal ?? code}: ${this.errors}`)
        reject(error)
        for (const { timer, reject: fail } of this.calls.values()) {
          clearTimeout(timer)
          fail(error)
        }
        this.calls.clear()
        if (!this.isExpectedToEnd) onLost(error)
      })
    })
    this.ready.catch(() => {})
  }

  get isAlive() {
    return this.child.exitCode === null && this.child.signalCode === null
  }

  call(method, ...args) {
    const id = this.next++
    return new Promise((resolve, reject) => {
      const late = () => {
        this.calls.delete(id)
        reject(new Error(`"${method}" did not return within ${this.callMs} ms`))
      }
      const timer = setTimeout(late, this.callMs)
      this.calls.set(id, { resolve, reject, timer })
      this.child.send({ id, method, args }, error => error && this.settle({ id, error: error.message }))
    })
  }

  settle({ id, result, error }) {
    const call = this.calls.get(id)
    this.calls.delete(id)
    if (call === undefined) return
    clearTimeout(call.timer)
    if (error === undefined) call.resolve(result)
    else call.reject(new Error(error))
  }

  /** Ends it with SIGKILL. */
  async kill() {
    this.isExpectedToEnd = true
    this.child.kill('SIGKILL')
    await this.closed
  }

  /** Ends it as it ends by itself, with what it has started, or with SIGKILL if it does not respond. */
  async end() {
    this.isExpectedToEnd = true
    // After `disconnect()` there is no "close".
    const ended = once(this.child, 'exit')
    if (this.child.connected) this.child.disconnect()
    const timer = setTimeout(() => this.child.kill('SIGKILL'), END_MS)
    await ended
    clearTimeout(timer)
  }
}
