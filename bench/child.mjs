// Child processes that respond to a line of JSON with a line of JSON.
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { isRunning, spawnOwned } from './owned.mjs'

const RESPONSE_TIMEOUT_MS = 30_000

export class Child {
  #process
  #name
  #waiting = []
  #errors = ''

  /** Starts `command ...flags file config` and resolves with the child and its first line. */
  static async start(command, file, config, flags = []) {
    const child = new Child()
    child.#name = `${file.pathname.split('/').at(-1)} ${config.subject ?? ''}`.trim()
    child.#process = spawnOwned(command, [...flags, file.pathname, JSON.stringify(config)], { stdio: 'pipe' })
    child.#listen()
    try {
      return { child, first: await child.#response() }
    } catch (error) {
      await child.end()
      throw error
    }
  }

  get pid() {
    return this.#process.pid
  }

  /** Responses arrive in the order of the requests. */
  ask(request = {}) {
    const response = this.#response()
    this.#process.stdin.write(`${JSON.stringify(request)}\n`)
    return response
  }

  async end() {
    if (!isRunning(this.#process)) return
    const exited = once(this.#process, 'exit')
    this.#process.kill('SIGKILL')
    await exited
  }

  #listen() {
    const lines = createInterface({ input: this.#process.stdout })
    lines.on('line', line => this.#waiting.shift()?.resolve(JSON.parse(line)))
    this.#process.stderr.on('data', text => {
      this.#errors = `${this.#errors}${text}`.slice(-2_000)
    })
    // Writing to a child that has ended fails; the end itself is reported below.
    this.#process.stdin.on('error', () => {})
    const gone = () => {
      for (const { reject } of this.#waiting.splice(0)) reject(this.#failure('ended'))
    }
    this.#process.once('error', gone)
    // Its last line may arrive after it has exited.
    this.#process.once('close', gone)
  }

  #response() {
    const { promise, resolve, reject } = withResolvers()
    this.#waiting.push({ resolve, reject })
    const timer = setTimeout(() => reject(this.#failure('did not respond')), RESPONSE_TIMEOUT_MS)
    return promise.finally(() => clearTimeout(timer))
  }

  #failure(what) {
    return new Error(`${this.#name} ${what}${this.#errors ? `: ${this.#errors.trim()}` : ''}`)
  }
}

function withResolvers() {
  const deferred = {}
  deferred.promise = new Promise((resolve, reject) => Object.assign(deferred, { resolve, reject }))
  return deferred
}
