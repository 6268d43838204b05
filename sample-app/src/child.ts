import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const STOP_WITHIN_MS = 2_000

/** A process of the demo. It always ends with this one. */
export class Child {
  private readonly process: ChildProcess
  private readonly ended: Promise<unknown>

  /** @param script relative to `dist` */
  constructor(script: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}) {
    const path = fileURLToPath(new URL(`./${script}`, import.meta.url))
    this.process = fork(path, args, { env: { ...process.env, ...env } })
    this.ended = once(this.process, 'exit')
  }

  /** Resolves when the process has ended, for whatever reason. */
  get whenEnded(): Promise<unknown> {
    return this.ended
  }

  get pid(): number | undefined {
    return this.process.pid
  }

  get isAlive(): boolean {
    return this.process.exitCode === null && this.process.signalCode === null
  }

  /** Lets this process end first. The other process then also ends, because its channel closes. */
  unref(): void {
    this.process.unref()
    this.process.channel?.unref()
  }

  onMessage(listener: (message: unknown) => void): void {
    this.process.on('message', listener)
  }

  /** The next message. Rejects if the process ends first. */
  async nextMessage(): Promise<unknown> {
    const message = once(this.process, 'message')
    const first = await Promise.race([message, this.ended.then(() => undefined)])
    if (first !== undefined) return first[0]
    throw new Error('a process of the demo ended while it started; its error is above')
  }

  /** Messages to a process that has ended, or is just ending, are ignored. */
  send(message: object): void {
    if (this.process.connected) this.process.send(message, () => {})
  }

  /** Asks the process to end, and kills it if it does not. */
  async stop(): Promise<void> {
    if (!this.isAlive) return
    this.send({ type: 'stop' })
    const timer = setTimeout(() => this.process.kill('SIGKILL'), STOP_WITHIN_MS)
    await this.ended
    clearTimeout(timer)
  }

  /** Ends the process at once, like a crash. */
  async kill(): Promise<void> {
    if (this.isAlive) this.process.kill('SIGKILL')
    await this.ended
  }
}
