import { type INestApplicationContext, Logger } from '@nestjs/common'
import { MqttSession } from './client/mqtt-session.js'

const SAME_SIGNAL_MS = 1_000

/** Makes `app.close()` drain first, and closes the application on these signals. */
export function drainOnClose(app: INestApplicationContext, signals: readonly NodeJS.Signals[]): void {
  // Nest's proxy of the application ignores assignments and looks up methods at each call. So the method of the class is
  // called, and the new one is defined.
  const close: unknown = Reflect.get(Object.getPrototypeOf(app), 'close')
  let closing: Promise<void> | undefined
  const drainThenClose = (signal?: NodeJS.Signals): Promise<void> => {
    closing ??= drainAll(app)
      .then(() => (typeof close === 'function' ? Reflect.apply(close, app, [signal]) : undefined))
      .finally(stopListening)
    return closing
  }
  Object.defineProperty(app, 'close', { configurable: true, value: drainThenClose })
  let firstSignalMs: number | undefined
  const onSignal = (signal: NodeJS.Signals): void => {
    // A terminal and a package manager may both forward one Ctrl-C, so an early second signal is ignored.
    const isImpatient = firstSignalMs !== undefined && performance.now() - firstSignalMs > SAME_SIGNAL_MS
    firstSignalMs ??= performance.now()
    if (isImpatient) {
      stopListening()
      process.kill(process.pid, signal)
      return
    }
    abandonStart(app)
    drainThenClose(signal).catch((error: unknown) => {
      new Logger('MqttModule').error(error)
      process.exitCode = 1
    })
  }
  const stopListening = (): void => {
    for (const signal of signals) process.off(signal, onSignal)
  }
  for (const signal of signals) process.on(signal, onSignal)
}

/** Without an exit code, Node exits with 13 if a top-level await never settles. */
function abandonStart(app: INestApplicationContext): void {
  for (const session of sessionsOf(app)) session.shutdown.abandonStart()
  process.exitCode ??= 0
}

/** Never rejects, so that the application also closes without a connection or after a failed drain. */
async function drainAll(app: INestApplicationContext): Promise<void> {
  await Promise.allSettled(sessionsOf(app).map(session => session.drain()))
}

/** Finds all connections, whatever their names. Nest throws if there is none, and returns null in preview mode. */
function sessionsOf(app: INestApplicationContext): MqttSession[] {
  try {
    const sessions: (MqttSession | null)[] = app.get(MqttSession, { strict: false, each: true })
    return sessions.filter(session => session !== null)
  } catch {
    return []
  }
}
