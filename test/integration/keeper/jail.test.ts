/** A jail without /dev (chroot, some sandboxes): Node serves there, and so does an app under a keeper. */

import { spawnSync } from 'node:child_process'
import { expect, it } from 'vitest'
import { freePorts, get } from '../../helpers/ask.js'
import { commandFile } from '../../helpers/built.js'
import { Place } from '../../helpers/command.js'
import { Program, programPath, waitFor } from '../../helpers/program.js'

const jail = ['-m', 'sh', '-c', 'mount -t tmpfs none /dev && exec "$@"', 'sh']

it('an app starts, is reloaded and stops where there is no /dev/null', async ({ skip }) => {
  skip(spawnSync('unshare', [...jail, 'true']).status !== 0, 'nothing can be mounted here')
  await using place = new Place()
  const [port = 0] = await freePorts(1)
  await using keeper = Program.start(commandFile, {
    node: 'unshare', execArgv: [...jail, process.execPath], args: ['run', '--name', 'shop', '--spare', 'off', programPath('unaware.cjs')],
    env: { CASE: 'plain', PORT: String(port), HANDOVER_DIR: place.sockets }
  })
  const answers = async (): Promise<string> => (await get({ port }).catch(() => ({ body: '' }))).body
  await waitFor(async () => await answers() !== '')
  const first = await answers()
  expect(await place.run('reload', 'shop', '--bake', '0')).toMatchObject({ status: 0 })
  await waitFor(async () => await answers() !== first)
  expect(await place.run('stop', 'shop')).toMatchObject({ status: 0 })
  expect(await keeper.ended).toEqual({ code: 0, signal: null })
})
