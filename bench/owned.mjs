// Processes and folders of this run. All of them are removed, however the run ends.
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
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

/**
 * Keeps the subject on one core and the broker on another, where there is `taskset`. Otherwise the scheduler sometimes puts
 * both on one core, and two processes that wait for each other are twice as fast there.
 */
export function separate(subjects, brokers) {
  if (cpus().length < 2) return
  for (const [core, list] of [subjects, brokers].entries())
    for (const pid of list) spawnSync('taskset', ['-a', '-p', '-c', String(core), String(pid)])
}

export const isRunning = child => children.has(child)

export function ownFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-bench-'))
  folders.add(folder)
  return folder
}
