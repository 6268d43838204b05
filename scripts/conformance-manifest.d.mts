export interface Statement {
  readonly id: string
  readonly says: string
  /** Each is the file and the full title of a test. */
  readonly tests?: readonly string[]
  /** Why no test of a client can hold it. */
  readonly notApplicable?: string
  /** Why the client does something else on purpose; its tests show what. */
  readonly deviates?: string
}
export interface Manifest {
  readonly mqtt5: readonly Statement[]
  readonly mqtt311: readonly Statement[]
}
export interface CollectedTest {
  readonly file: string
  readonly title: string
  readonly state: string
}
export interface Counts {
  readonly statements: number
  readonly tested: number
  readonly notApplicable: number
  readonly deviating: number
}
export function readManifest(file?: URL): Manifest
export function filesOf(manifest: Manifest): string[]
export function problemsOf(manifest: Manifest, collected: readonly CollectedTest[]): string[]
export function countsOf(statements: readonly Statement[]): Counts
export function pageOf(manifest: Manifest): string
