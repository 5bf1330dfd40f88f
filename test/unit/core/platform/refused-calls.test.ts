/** Where the system refuses a call (filters of system calls, limits, some file systems): what goes on without it, and what is said. */

import { existsSync, mkdtempSync, rmdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants, tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, expect, it, vi } from 'vitest'
import {
  checkTls, firstStartFailed, internalFile, keeperOf, native, reasonOfStart, repairTodo, Support, takeKeeperName, takeTextFile, textFile,
  underLock
} from '../../../helpers/internals.js'

const { EAFNOSUPPORT, EAGAIN, EBADF, EMFILE, ENOLCK, ENOSYS, EPERM } = constants.errno

afterEach(() => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
})

it.each([EPERM, ENOSYS, ENOLCK, EBADF])('a name is taken without a lock where directories cannot be locked (%i); not where another process has it', (errno) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-lock-'))
  try {
    const lock = vi.spyOn(native!, 'lock').mockReturnValue(-errno)
    expect(underLock(folder, 0, () => 'taken')).toBe('taken')
    lock.mockReturnValue(-EAGAIN)
    expect(() => underLock(folder, 0, () => 'taken')).toThrow(`${folder} is locked by another process`)
  } finally {
    rmdirSync(folder)
  }
})

it.each([tmpdir(), '/dev/shm'].filter((folder) => existsSync(folder)))('state goes through a file in %s where there are no files in memory, on any file system', (folder) => {
  vi.stubEnv('TMPDIR', folder)
  vi.spyOn(native!, 'memoryFile').mockReturnValue(-EPERM)
  expect(takeTextFile(textFile('what it knew'))).toBe('what it knew')
})

it('connections under TLS do not move where there are no files in memory: their keys are never in one on a disk', async () => {
  const memoryFile = vi.spyOn(native!, 'memoryFile').mockReturnValue(-EPERM)
  expect(await checkTls()).toBe('this system has no files in memory (memfd_create) for the keys')
  // It is only out of descriptors for a moment.
  memoryFile.mockReturnValue(-EMFILE)
  expect(await checkTls() ?? '').not.toContain('memfd')
})

it.each([
  ['libuv got no thread: it says nothing', '', 'SIGABRT'],
  ['Node got no thread', '  #  Assertion failed: (0) == (uv_thread_create(t.get(), start_thread, this))', 'SIGABRT'],
  ['V8 got no memory', '# Fatal process out of memory: SegmentedTable::InitializeTable', 'SIGTRAP'],
  ['the program got no descriptor', "Error: EMFILE: too many open files, open '/srv/app/routes.js'", undefined]
])('a new version that ended for want of something sends the operator to the limits: %s', (_why, stderr, signal) => {
  expect(repairTodo(stderr, signal)).toMatch(/^Check the limits of this process and of its container .* or repair the build; then reload again$/)
})

it('a new version that ended by itself, or was aborted and says why, is to be repaired', () => {
  for (const signal of [undefined, 'SIGABRT']) expect(repairTodo('Error: no database', signal)).toBe('Repair the build and reload again')
})

it('a process that can make no pair of sockets listens all the same, and says why it cannot be reloaded', () => {
  vi.spyOn(native!, 'socketPair').mockReturnValue(-EPERM)
  expect(new Support(undefined, () => true, () => undefined).cannotReload()).toMatch(/^this process can make no channel to another one \(socketpair EPERM.*\)$/)
})

it('an error of the system at the start of a keeper is not blamed on the program', () => {
  const lines: string[] = []
  const say = (line: string): void => { lines.push(line) }
  const error = Object.assign(new Error('pipe EMFILE: too many open files'), { code: 'EMFILE' })
  expect(firstStartFailed(error, undefined, say)).toBe(1)
  expect(reasonOfStart(error)).toBe('pipe EMFILE: too many open files (see the limits of the keeper: ulimit -n, ulimit -u, memory)')
  expect(lines).toEqual(['pipe EMFILE: too many open files. Nobody serves. Check the limits of the keeper and of its container (ulimit -n, ulimit -u, memory), and start it again.'])
})

it.runIf(process.platform === 'linux')('a keeper without a control socket is not said to be deaf', () => {
  // This process and its parent: as a worker and its keeper.
  expect(keeperOf(process.ppid, process.pid, undefined, false)?.what).toBe(`process ${process.ppid} lives, and no control socket of it is found here: its log says why. SIGHUP reloads it, and SIGTERM stops it`)
  expect(keeperOf(process.ppid, process.pid, undefined, true)?.what).toContain('and does not answer: ')
})

it('a keeper that may open no Unix socket starts without a name, and says so', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-unix-'))
  vi.stubEnv('HANDOVER_DIR', folder)
  // The command has a copy of the core, in its built form.
  const { addon } = createRequire(import.meta.url)(internalFile) as { addon: () => NonNullable<typeof native> }
  vi.spyOn(addon(), 'connectUnix').mockReturnValue(-EAFNOSUPPORT)
  const lines: string[] = []
  const side = { called: () => '', asked: () => undefined, warn: (line: string) => { lines.push(line) } }
  try {
    expect(await takeKeeperName('shop', true, side, () => undefined)).toBeUndefined()
    expect(lines).toEqual([expect.stringMatching(/cannot be asked: connect .*EAFNOSUPPORT.* \(RestrictAddressFamilies= of systemd must allow AF_UNIX\)\. The commands handover reload, status and stop do not find this app.*; SIGHUP reloads it\.$/)])
  } finally {
    rmdirSync(folder)
  }
})
