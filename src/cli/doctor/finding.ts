import type { Observations } from './observations.js'

/**
 * `ok`: as this package needs it. `note`: a limit or a choice of the broker that an application may meet. `warning`: something
 * to change, here or at the broker. `unknown`: the check had no result.
 */
type FindingLevel = 'ok' | 'note' | 'warning' | 'unknown'

export interface Finding {
  readonly id: string
  readonly level: FindingLevel
  readonly title: string
  /** What was observed. */
  readonly text: string
  /** What to do. */
  readonly advice?: string
  /** Options of this package that concern it. */
  readonly options?: readonly string[]
}

/** What a finding says, without its name. */
export type Said = Omit<Finding, 'id' | 'title'>

export const ok = (text: string, options: readonly string[] = []): Said =>
  said('ok', text, undefined, options)
export const note = (text: string, advice?: string, options: readonly string[] = []): Said =>
  said('note', text, advice, options)
export const warning = (text: string, advice: string, options: readonly string[] = []): Said =>
  said('warning', text, advice, options)

function said(level: FindingLevel, text: string, advice?: string, options: readonly string[] = []): Said {
  return {
    level,
    text,
    ...(advice === undefined ? {} : { advice }),
    ...(options.length === 0 ? {} : { options }),
  }
}

/** One check: `decide` returns undefined if nothing was observed. */
export interface Rule {
  readonly id: string
  readonly title: string
  /** Name of the check that makes the observation. */
  readonly check: string
  /** The check exists on MQTT 5 only. */
  readonly isMqtt5?: boolean
  readonly decide: (observed: Observations) => Said | undefined
}
