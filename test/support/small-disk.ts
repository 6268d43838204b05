import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach } from 'vitest'

const disks: SmallDisk[] = []

/** A disk of its own for a test: a tmpfs, for which the process must be allowed to mount. */
export class SmallDisk {
  private constructor(
    readonly folder: string,
    /** Why there is no tmpfs. */
    private readonly refusal: string | undefined,
  ) {}

  static create(bytes: number): SmallDisk {
    const folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-disk-'))
    const disk = new SmallDisk(
      folder,
      refusalOf(() => run('mount', '-t', 'tmpfs', '-o', `size=${bytes}`, 'none', folder)),
    )
    disks.push(disk)
    if (disk.refusal !== undefined)
      console.warn(
        `this process may not mount a disk, so its own file sizes are limited instead: ${disk.refusal}`,
      )
    return disk
  }

  /** Leaves no space. Without a tmpfs, no file of this process can grow any more. */
  fill(): void {
    if (this.refusal !== undefined) return limitFileSize(largestIn(this.folder))
    for (const bytes of [65_536, 4_096, 1])
      for (
        let index = 0;
        refusalOf(() => writeFileSync(this.filler(bytes, index), Buffer.alloc(bytes))) === undefined;
      )
        index += 1
  }

  /** Makes space again. */
  free(): void {
    if (this.refusal !== undefined) return limitFileSize('unlimited')
    for (const name of readdirSync(this.folder))
      if (name.startsWith('filler-')) rmSync(join(this.folder, name))
  }

  /** @throws if this process may not mount */
  remount(mode: 'ro' | 'rw'): void {
    if (this.refusal !== undefined)
      throw new Error(`a read-only disk can only be tried where this process may mount: ${this.refusal}`)
    run('mount', '-o', `remount,${mode}`, this.folder)
  }

  /** Repeated calls do nothing. */
  remove(): void {
    if (!existsSync(this.folder)) return
    this.free()
    if (this.refusal === undefined) run('umount', '--lazy', this.folder)
    rmSync(this.folder, { recursive: true, force: true })
  }

  private filler(bytes: number, index: number): string {
    return join(this.folder, `filler-${bytes}-${index}`)
  }
}

/** Call it in a file of specs that uses `SmallDisk` or `limitFileSize`. */
export function removeDisksAfterEach(): void {
  afterEach(() => {
    limitFileSize('unlimited')
    for (const disk of disks.splice(0)) disk.remove()
  })
}

/** Sets the largest size to which this process can extend a file. Beyond it, writing fails with EFBIG. */
export function limitFileSize(bytes: number | 'unlimited'): void {
  run('prlimit', `--pid=${process.pid}`, `--fsize=${bytes}:`)
}

function largestIn(folder: string): number {
  return Math.max(0, ...readdirSync(folder).map(name => statSync(join(folder, name)).size))
}

function run(command: string, ...args: string[]): void {
  execFileSync(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

function refusalOf(work: () => void): string | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    return String(error)
  }
}
