/** What the sender of a message may learn about its failure. */
export interface ToldError {
  readonly status: 'error'
  readonly message: string
  /** Of an `HttpException`. */
  readonly statusCode?: number
  /** What is wrong with the payload, where that is it. */
  readonly issues?: readonly string[]
}

const MOST_ISSUES = 20
const LONGEST_ISSUE = 200
/** Some libraries quote the value after this text. It must not appear in a log. */
const QUOTED_VALUE = /,? (?:but )?received .*$/s

/**
 * What an error says that was made to be told: an `HttpException`, as Nest's pipes throw it, or the issues of a schema
 * library. Of a schema only paths and messages, never values. Undefined for every other error.
 */
export function toldBy(error: unknown): ToldError | undefined {
  if (typeof error !== 'object' || error === null) return undefined
  if ('issues' in error) return failedValidation(schemaIssues(error.issues))
  if (!isHttpException(error)) return undefined
  const statusCode = error.getStatus()
  const response: unknown = error.getResponse()
  const said =
    typeof response === 'object' && response !== null && 'message' in response ? response.message : response
  const failed = failedValidation(
    Array.isArray(said) ? said.filter(item => typeof item === 'string') : undefined,
  )
  if (failed !== undefined) return { ...failed, statusCode }
  return { status: 'error', message: typeof said === 'string' ? said : error.message, statusCode }
}

function failedValidation(issues: readonly string[] | undefined): ToldError | undefined {
  if (issues === undefined || issues.length === 0) return undefined
  const told = issues
    .slice(0, MOST_ISSUES)
    .map(issue => issue.replace(QUOTED_VALUE, '').slice(0, LONGEST_ISSUE))
  return { status: 'error', message: `Validation failed: ${told.join('; ')}`, issues: told }
}

function schemaIssues(issues: unknown): string[] | undefined {
  if (!Array.isArray(issues)) return undefined
  const told = issues.map(schemaIssue)
  return told.every(issue => issue !== undefined) ? told : undefined
}

function schemaIssue(issue: unknown): string | undefined {
  if (typeof issue !== 'object' || issue === null || !('message' in issue)) return undefined
  if (typeof issue.message !== 'string') return undefined
  const { message } = issue
  const path = 'path' in issue && Array.isArray(issue.path) ? issue.path.map(keyOf).join('.') : ''
  return path === '' ? message : `${path}: ${message}`
}

/** Zod has keys, valibot has objects with a key. */
function keyOf(part: unknown): string {
  return typeof part === 'object' && part !== null && 'key' in part ? String(part.key) : String(part)
}

interface HttpExceptionLike {
  readonly message: string
  getStatus(): number
  getResponse(): unknown
}

function isHttpException(error: object): error is HttpExceptionLike {
  return (
    error instanceof Error &&
    'getStatus' in error &&
    typeof error.getStatus === 'function' &&
    'getResponse' in error &&
    typeof error.getResponse === 'function'
  )
}
