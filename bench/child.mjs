// Child processes that answer a line of JSON with a line of JSON. None of them outlives this process.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

const ANSWER_WITHIN_MS = 20_000
const running = new Set()
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

export class Child {
  #process
  #name
  #waiting = []
  #errors = ''

  /** Starts `command ...flags file config` and gives it with its first line. */
  static async start(command, file, config, flags = []) {
    const child = new Child()
    child.#name = `${file.pathname.split('/').at(-1)} ${config.subject ?? ''}`.trim()
    child.#process = spawn(command, [...flags, file.pathname, JSON.stringify(config)], {
      stdio: 'pipe',
    })
    running.add(child.#process)
    child.#listen()
    try {
      return { child, first: await child.#answer() }
    } catch (error) {
      await child.end()
      throw error
    }
  }

  /** Requests are answered in order. */
  ask(request = {}) {
    const answer = this.#answer()
    this.#process.stdin.write(`${JSON.stringify(request)}\n`)
    return answer
  }

  async end() {
    if (!running.has(this.#process)) return
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
    // A child that is gone cannot be written to; its end is told below.
    this.#process.stdin.on('error', () => {})
    const gone = () => {
      running.delete(this.#process)
      for (const { reject } of this.#waiting.splice(0)) reject(this.#failure('ended'))
    }
    this.#process.once('error', gone)
    // Its last line may come after its end.
    this.#process.once('exit', () => running.delete(this.#process))
    this.#process.once('close', gone)
  }

  #answer() {
    const { promise, resolve, reject } = withResolvers()
    this.#waiting.push({ resolve, reject })
    const timer = setTimeout(() => reject(this.#failure('gave no answer')), ANSWER_WITHIN_MS)
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
