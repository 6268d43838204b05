import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach } from 'vitest'

const folders: string[] = []

/** Returns the path of a file that does not exist yet, in a folder that is removed after the test. */
export function newFile(name = 'alarms.db'): string {
  const folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-store-'))
  folders.push(folder)
  return join(folder, name)
}

/** Call it in a file of specs that uses `newFile`. */
export function removeFilesAfterEach(): void {
  afterEach(() => {
    for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
  })
}
