/** Something that the user of the command can correct. */
export class CliError extends Error {}

/** What the command needs from its process. */
export interface CliHost {
  readonly cwd: string
  /** Environment variables. @default none */
  readonly env?: NodeJS.ProcessEnv
  /** `import()`, which the CommonJS build cannot contain. */
  load(url: string): Promise<unknown>
  out(text: string): Promise<void>
  error(text: string): Promise<void>
}
