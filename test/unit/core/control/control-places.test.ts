/** Which directories are used for control sockets, by the environment, the user and what there is. */

import { expect, test } from 'vitest'
import { placesIn, type World } from '../../../helpers/internals.js'

const world = (different: Partial<World>): World => ({ env: {}, uid: 1000, temporary: '/tmp', exists: () => false, ownerOf: () => undefined, list: () => [], ...different })

test.each<[string, Partial<World>, readonly string[]]>([
  ['a user without anything', {}, ['/tmp/handover-1000']],
  ['root', { uid: 0 }, ['/run/handover', '/tmp/handover-0']],
  ['a login', { env: { XDG_RUNTIME_DIR: '/run/user/1000' }, exists: () => true }, ['/run/user/1000/handover', '/tmp/handover-1000']],
  ['root with the XDG_RUNTIME_DIR of the user before (sudo -E)', { uid: 0, env: { XDG_RUNTIME_DIR: '/run/user/1000' }, ownerOf: () => 1000 },
    ['/run/handover', '/tmp/handover-0', '/run/user/1000/handover']],
  ['a directory of root that all use', { env: { XDG_RUNTIME_DIR: '/run/all' }, ownerOf: () => 0 }, ['/run/all/handover', '/tmp/handover-1000']],
  ['a cron job while the user is logged in', { exists: (folder) => folder === '/run/user/1000' }, ['/tmp/handover-1000', '/run/user/1000/handover']],
  ['a temporary directory of its own', { temporary: '/srv/tmp' }, ['/srv/tmp/handover-1000', '/tmp/handover-1000']],
  ['a relative XDG_RUNTIME_DIR, which the specification says to ignore', { env: { XDG_RUNTIME_DIR: 'run' } }, ['/tmp/handover-1000']],
  ['directories that were made when the others were taken', { list: () => ['handover-1000-b', 'handover-1000', 'handover-10001-c', 'handover-1000-a', 'x'] },
    ['/tmp/handover-1000', '/tmp/handover-1000-a', '/tmp/handover-1000-b']],
  ['HANDOVER_DIR', { env: { HANDOVER_DIR: '/run/app', XDG_RUNTIME_DIR: '/run/user/1000' }, exists: () => true, list: () => ['handover-1000-a'] }, ['/run/app']]
])('%s', (_what, different, folders) => {
  expect(placesIn(world(different)).folders).toEqual(folders)
})

test('a relative HANDOVER_DIR is refused', () => {
  expect(() => placesIn(world({ env: { HANDOVER_DIR: 'sockets' } }))).toThrow(/HANDOVER_DIR=sockets is a relative path, expected an absolute one/)
})
