/** Lines up the columns of a table: the first to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map(row => row[column]?.length ?? 0)))
  const lines = rows.map(row =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('  '),
  )
  const rule = widths.map(width => '─'.repeat(width)).join('  ')
  return [lines[0], rule, ...lines.slice(1)].map(line => `  ${line}`).join('\n')
}
