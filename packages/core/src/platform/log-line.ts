/** One line of the log: for people, or as JSON where HANDOVER_LOG=json asks for that. */

export function logLine(level: 'info' | 'warn' | 'error', line: string): string {
  if (process.env['HANDOVER_LOG']?.trim().toLowerCase() !== 'json') return `handover: ${level === 'info' ? '' : `${level}: `}${line}\n`
  return `${JSON.stringify({ time: new Date().toISOString(), level, name: 'handover', pid: process.pid, message: line })}\n`
}
