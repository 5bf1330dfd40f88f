/**
 * Plain tables and numbers for people, readable at 80 columns.
 */

/** The rows of all tables that were made: for `--json`. */
export const tables: (readonly (readonly string[])[])[] = []

/** Rows of cells in columns; the first column to the left, the others to the right, unless `left` names them. */
export function table(rows: readonly (readonly string[])[], left: readonly number[] = [0]): string {
  tables.push(rows)
  const widths: number[] = []
  for (const row of rows) row.forEach((cell, column) => { widths[column] = Math.max(widths[column] ?? 0, cell.length) })
  return rows.map((row) => row.map((cell, column) => {
    return left.includes(column) ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)
  }).join('  ').trimEnd()).join('\n')
}

export const count = (value: number): string => Math.round(value).toLocaleString('en-US')

/** Three digits that mean something. */
export const ms = (value: number): string => value >= 100 ? count(value) : value.toFixed(value >= 10 ? 1 : 2)

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
