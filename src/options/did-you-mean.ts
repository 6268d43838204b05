/**
 * Finds the option that was probably meant: one whose name differs in a few letters, or that belongs to a group.
 * @param known the options at this place, separated by commas
 */
export function didYouMean(path: string, known: string): string | undefined {
  const group = path.slice(0, path.lastIndexOf('.') + 1)
  const name = plain(path.slice(group.length))
  const ranked = known
    .split(',')
    .map(option => ({ option, typos: editDistance(name, plain(option.slice(option.lastIndexOf('.') + 1))) }))
    .sort((one, other) => one.typos - other.typos)
  const [nearest] = ranked
  if (nearest === undefined || nearest.typos > Math.min(2, name.length / 3)) return undefined
  return `did you mean "${group}${nearest.option}"?`
}

const plain = (name: string): string => name.replace(/[-_]/g, '').toLowerCase()

/** How many letters to add, remove or replace (Levenshtein). */
function editDistance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index)
  for (const [line, letter] of [...one].entries()) {
    const next = [line + 1]
    for (const [index, otherLetter] of [...other].entries()) {
      const replaced = (row[index] ?? 0) + (letter === otherLetter ? 0 : 1)
      next.push(Math.min(replaced, (row[index + 1] ?? 0) + 1, (next[index] ?? 0) + 1))
    }
    row = next
  }
  return row.at(-1) ?? 0
}
