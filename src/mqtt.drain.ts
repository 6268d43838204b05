import { type INestApplicationContext, Logger } from '@nestjs/common'
import { MqttSession } from './client/mqtt-session.js'

const SAME_SIGNAL_MS = 1_000

/** Puts the drain in front of `app.close()`, and closes on these signals. */
export function drainOnClose(app: INestApplicationContext, signals: readonly NodeJS.Signals[]): void {
  // Nest hands out proxies that swallow assignments and look methods up at each call, so the method of the
  // class itself is called, and the new one is defined.
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
    // A terminal and a package manager may both send the one Ctrl-C on, so an early second one is the first.
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

/** Node ends with 13 where a module awaits what never settles, unless there is an exit code. */
function abandonStart(app: INestApplicationContext): void {
  for (const session of sessionsOf(app)) session.abandonStart()
  process.exitCode ??= 0
}

/** Never rejects: an application without a connection, or with one that fails, must close all the same. */
async function drainAll(app: INestApplicationContext): Promise<void> {
  await Promise.allSettled(sessionsOf(app).map(session => session.drain()))
}

/** Found without the names of the connections. Nest throws where there is none, and gives null in a preview. */
function sessionsOf(app: INestApplicationContext): MqttSession[] {
  try {
    const sessions: (MqttSession | null)[] = app.get(MqttSession, { strict: false, each: true })
    return sessions.filter(session => session !== null)
  } catch {
    return []
  }
}
