export interface LockedPackage {
  readonly name?: string
  readonly version?: string
  readonly license?: string
  readonly hasInstallScript?: boolean
  readonly dependencies?: Readonly<Record<string, string>>
}
export interface Lock {
  readonly packages: Readonly<Record<string, LockedPackage>>
}
export function readLock(file?: URL): Lock
/** @throws Error if a dependency is missing in the lock file */
export function runtimePackages(lock: Lock): Record<string, LockedPackage>
