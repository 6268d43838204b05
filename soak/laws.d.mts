import type { Evidence } from './evidence.mjs'

export interface Facts {
  readonly killed: Readonly<Record<string, readonly number[]>>
  readonly stores: readonly {
    readonly name: string
    readonly messages?: number
    readonly setAside?: number
    readonly error?: string
  }[]
}

export interface Judgement {
  readonly name: string
  readonly text: string
  readonly checks: number
  readonly broken: readonly string[]
}

export function judge(evidence: Evidence, facts: Facts): Judgement[]
export function failureOf(
  laws: readonly { readonly name: string; readonly checks: number; readonly broken: number }[],
): string | undefined
