// Processes and folders of this run. All of them are removed, however the run ends.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const children = new Set()
const folders = new Set()
process.once('exit', () => {
  for (const child of children) child.kill('SIGKILL')
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})
process.once('SIGINT', () => process.exit(130))
process.once('SIGTERM', () => process.exit(143))

export function spawnOwned(command, args, options) {
  const child = spawn(command, args, options)
  children.add(child)
  const forget = () => children.delete(child)
  child.once('exit', forget)
  child.once('error', forget)
  return child
}

export const isRunning = child => children.has(child)

export function ownFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-bench-'))
  folders.add(folder)
  return folder
}
