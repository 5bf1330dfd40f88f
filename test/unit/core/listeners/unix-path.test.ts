/** Permissions of Unix sockets that are bound anew, in a folder where other users may write. */

import { closeSync, chmodSync, lstatSync, renameSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { bindUnix, setMode } from '../../../helpers/internals.js'
import { Folder } from '../../../helpers/plan.js'

it('a socket that is bound anew has the permissions that its file had', () => {
  using folder = new Folder()
  const at = folder.at('app.sock')
  for (const mode of [0o600, 0o666, 0o755]) {
    const fd = bindUnix(at, true, mode)
    expect([fd, lstatSync(at).mode & 0o777]).toEqual([expect.any(Number), mode])
    closeSync(fd!)
  }
})

it('permissions go to a socket, and never to what a link leads to that stands in its place by now', () => {
  using folder = new Folder()
  const [at, secret] = [folder.at('app.sock'), folder.at('secret')]
  writeFileSync(secret, 'secret')
  chmodSync(secret, 0o600)
  closeSync(bindUnix(folder.at('bound'), true)!)
  symlinkSync(secret, at)
  expect(() => { setMode(at, 0o666) }).toThrow()
  expect(statSync(secret).mode & 0o777).toBe(0o600)
  renameSync(folder.at('bound'), at)
  setMode(at, 0o666)
  expect(lstatSync(at).mode & 0o777).toBe(0o666)
})
