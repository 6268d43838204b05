import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** A process that writes to a store or to an inbox. */
export class StoreProcess {
  /** What it said, in order. */
  readonly lines: string[] = []
  private readonly ended: Promise<unknown>

  private constructor(private readonly child: ChildProcess) {
    this.ended = once(child, 'close')
  }

  /** Resolves when it has opened the store. */
  static async start(file: string, first = 0, app = 'store-writer.mjs'): Promise<StoreProcess> {
    const script = fileURLToPath(new URL(`../e2e/apps/${app}`, import.meta.url))
    const child = spawn(process.execPath, [script, file, String(first)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const started = new StoreProcess(child)
    let errors = ''
    child.stderr?.on('data', (text: Buffer) => (errors += text.toString()))
    const opened = new Promise<void>((resolve, reject) => {
      if (child.stdout !== null)
        createInterface({ input: child.stdout }).on('line', line => {
          started.lines.push(line)
          if (line === 'open') resolve()
        })
      started.ended.then(() => reject(new Error(`the process ended: ${errors}`)), reject)
    })
    await opened
    return started
  }

  /** Resolves when it has said this many lines. */
  async hasSaid(count: number): Promise<void> {
    while (this.lines.length < count) await once(this.child.stdout ?? this.child, 'data')
  }

  /** Resolves when it has said a line that begins with this word. */
  async hasSaidWord(word: string): Promise<void> {
    while (!this.lines.some(line => line.startsWith(word)))
      await once(this.child.stdout ?? this.child, 'data')
  }

  /** Ends it with SIGKILL. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await this.ended
  }

  /** The ids in the lines that begin with this word. */
  ids(word: string): string[] {
    return this.lines.flatMap(line => {
      const [first, ...ids] = line.split(' ')
      if (first !== word) return []
      return word === 'added' ? ids.slice(0, 1) : ids.filter(id => id !== '')
    })
  }
}
