// The subjects of a comparison, and the programs that measure them.
import { pathToFileURL } from 'node:url'

/** The option that names another checkout of this package, as the subject `before`. */
export const AGAINST = '--against='

/** Adds `before` next to `ours`. */
export const subjectsWith = (subjects, before) =>
  before === undefined ? subjects : [subjects[0], 'before', ...subjects.slice(1)]

/** The program in the bench folder of the checkout that the subject measures. */
export const programOf = (file, subject, before) =>
  subject === 'before'
    ? new URL(`bench/${file}`, pathToFileURL(`${before}/`))
    : new URL(file, import.meta.url)
