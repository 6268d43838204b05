import { EmbeddedBroker } from 'nestjs-mqtt/testing'

// The embedded broker, in a process of its own: it can be killed like a real one.

const ANY_FREE_PORT = 0

const broker = await start(Number(process.argv[2] ?? ANY_FREE_PORT))
process.send?.(broker.url)
// Ctrl-C reaches every process of the terminal. The broker ends when the process that started it has ended.
process.on('SIGINT', () => {})
process.on('disconnect', () => void stop())

async function start(port: number): Promise<EmbeddedBroker> {
  try {
    return await EmbeddedBroker.start({ port })
  } catch (error) {
    if (!isAddressInUse(error)) throw error
    console.warn(`Port ${port} is in use, so the embedded broker listens on another one.`)
    return await EmbeddedBroker.start({ port: ANY_FREE_PORT })
  }
}

function isAddressInUse(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EADDRINUSE'
}

async function stop(): Promise<void> {
  await broker.stop()
  process.exit(0)
}
