/** Loaded with `--import`: at SIGUSR2 the process writes to stderr how much user and system time it has taken, in µs. */

process.on('SIGUSR2', () => {
  const { user, system } = process.cpuUsage()
  process.stderr.write(`cpu ${user + system}\n`)
})
