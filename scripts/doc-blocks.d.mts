export interface DocBlock {
  readonly language: string
  /** Code of another package, which is not compiled. */
  readonly isForeign: boolean
  /** Line of the page on which the code starts. */
  readonly line: number
  /** The file that the block is. */
  readonly path: string | undefined
  readonly code: string
}

export function docBlocks(file: string | URL): DocBlock[]

export declare const RELATIVE_IMPORT: RegExp
