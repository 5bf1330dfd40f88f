/** What `--help` prints: at most 25 lines of 80 columns each. Pure. */

export const overview = `handover: reload a Node server without losing a request

  handover run [options] script    start a server under a keeper
  handover reload [name|pid]       start the new version and hand over to it
  handover status [name|pid]       every generation that lives, and what it does
  handover stop [name|pid]         drain and end
  handover drill [name|pid]        reload under load, and print what was lost

A name or pid is needed only where several apps run. Processes are found in
HANDOVER_DIR, else in $XDG_RUNTIME_DIR/handover, /run/handover for root, and
/tmp/handover-<uid>.

  handover <command> --help        the options of a command
  handover --version

Exit status: 0 done, 1 failed, 2 wrong arguments.
`

export const helpOf = {
  run: `handover run [options] [node options] script [arguments]

Starts a Node server under a keeper, which holds its listeners: a crash is a
pause, and a reload loses nothing. HUP reloads, TERM and INT drain and stop.

  --workers N|max      how many processes share the listeners (1)
  --name NAME          by which the other commands find it
  --hang-timeout TIME  replace a worker that is blocked for longer (30s; 0: no)
  --shared             one queue for all workers, instead of one for each
  --spare on|off       boot the next worker while nothing else is to do (on)

Options of Node stand before the script, as with node itself:
  handover run --workers 4 --import tsx server.ts --port 3000
Everything after the script belongs to the script. TIME: 500ms, 30s, 2m.
`,
  reload: `handover reload [name|pid] [options]

Starts the new version, hands over to it when it is ready, and watches it.
Exit status 0 only when it serves. Else nothing has changed: the reason, the
last lines that the new version wrote, and who serves now are printed.

  --wait           until the old version has ended, too
  --bake TIME      how long the new version is watched (3s)
  --timeout TIME   how long this command waits for the answer (120s)
  --without-state  the new version begins without the shared state
  --timing         where the time went, phase by phase
  --json           the outcome as JSON

Under a keeper (handover run):
  --canary N       so many workers go first and are watched, then the rest
  --probe /PATH    must answer 2xx before the new version accepts anything
  --parallel       all workers at once, instead of as many as there are cores
  --workers N|max  another number of workers from now on
  --allow-drop     the new version may listen on less than the old one
  --keeper         hand over the keeper itself, not the app

TIME: 500ms, 30s, 2m.
`,
  status: `handover status [name|pid] [options]

Every generation that lives: what it is, what it has open, and what a drain
still waits for. Without a name: all apps of this user.

  --watch   again every second, until ctrl-C
  --json    {"apps": [...]}; with --watch one line each second

BUSY: requests that are being answered. DELAY: the longest that the event loop
was late since the last status.
`,
  stop: `handover stop [name|pid] [options]

Drains and ends every process of the app: requests that run are answered, then
the processes end, within drainTimeout. Waits for that.

  --json    which processes were stopped
`,
  drill: `handover drill [name|pid] [options]

Reloads the app under strict load, and prints what was lost: 0, or exactly what.
Exit status 0 only where nothing was lost.

  --url URL          where it serves, if not where it listens
  --path /PATH       what is asked for (the path of the URL)
  --connections N    how many clients (50)
  --duration TIME    how long the load lasts before, and again after (2s)
  --json             the result as JSON

TIME: 500ms, 30s, 2m.
`
} as const

export type CommandName = keyof typeof helpOf
