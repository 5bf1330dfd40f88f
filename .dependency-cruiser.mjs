/**
 * Who may import whom: one rule a room, with its reason, and none in a circle (types count). `npm run lint` runs it. docs/architecture.md has the picture.
 */

const core = 'packages/core/src'
const cli = 'packages/cli/src'
const load = 'packages/load/src'

/** What is in `room` imports nothing of its package but itself and `allowed`. */
const only = (base, room, allowed, reason) => ({
  name: `${base.split('/')[1]}: ${room}`,
  comment: reason,
  severity: 'error',
  from: { path: `^${base}/${room}${room.includes('.') ? '$' : '/'}` },
  to: { path: `^${base}/`, pathNot: [room.includes('.') ? `^${base}/${room}$` : `^${base}/${room}/`, ...allowed.map((name) => `^${base}/${name}${/\.(ts|\*)$/.test(name) ? '$' : '/'}`)] }
})
const never = (name, from, to, comment) => ({ name, comment, severity: 'error', from: { path: `^${from}` }, to: { path: to.map((path) => `^${path}`) } })

const ground = ['errors.ts', 'typo.ts']
const below = [...ground, 'platform', 'protocol']
const wings = ['listeners', 'connections', 'sharing', 'control']
const wing = 'a wing knows no other wing: what it needs of one comes through handover/ and generation/'

export default {
  forbidden: [
    { name: 'no circle', comment: 'two files that import each other cannot be read one after the other; types count', severity: 'error', from: {}, to: { circular: true } },

    only(core, 'errors.ts', [], 'errors stand on nothing'),
    only(core, 'typo.ts', [], 'comparing two words stands on nothing'),
    only(core, 'options.ts', [...ground, 'platform'], 'options are known before anything else is'),
    only(core, 'platform', ground, 'the world knows no words of the protocol, and no room above it'),
    only(core, 'platform/node', [...ground, 'platform/native.ts'], 'only here may a private field of Node be touched, so it stays small'),
    only(core, 'protocol', [...ground, 'platform'], 'the words and how they travel know nobody who says them'),
    never('core: pure words', `${core}/protocol/(handover-messages|keeper-messages|control-messages|lifecycle|report)\\.ts`, [`${core}/platform/`, 'node:', '(fs|net|path|os|child_process|events|util)$'], 'words are pure: they import each other, and no Node module'),
    only(core, 'fd', [...ground, 'platform'], 'passing descriptors is a product of its own, for programs that want nothing else'),
    ...wings.map((room) => only(core, room, below, wing)),
    only(core, 'keeper-link', [...below, 'options.ts', 'listeners'], 'a worker\'s side of the link to its keeper uses what is below it; generation decides'),
    only(core, 'handover', [...below, 'options.ts', ...wings, 'keeper-link'], 'the act is below the object that users hold'),
    never('core: predecessor', `${core}/handover/(predecessor|undo|shutdown)\\.ts`, [`${core}/handover/(successor|startup)\\.ts`], 'predecessor and successor know each other only through messages'),
    never('core: successor', `${core}/handover/(successor|startup)\\.ts`, [`${core}/handover/(predecessor|undo|shutdown)\\.ts`], 'predecessor and successor know each other only through messages'),
    only(core, 'generation', [...below, 'options.ts', ...wings, 'keeper-link', 'handover'], 'everything meets here, and only the doors (index, adapters, internal) import it'),
    only(core, 'websocket', [...ground, 'index.ts', 'adapters.ts', 'platform/node', 'platform/loop-budget.ts', 'platform/on-demand.ts'], 'WebSockets move by the public face, as those of any program could'),
    never('core: doors', `${core}/(platform|protocol|fd|listeners|connections|sharing|control|keeper-link|handover|generation)/`, [`${core}/(index|adapters|internal)\\.ts`], 'the doors are for programs and the command, not for the rooms behind them'),

    only(cli, 'text.ts', [], 'text stands on nothing'),
    only(cli, 'failure.ts', [], 'failures stand on nothing'),
    only(cli, 'service.ts', [], 'counts of a service stand on nothing'),
    only(cli, 'command-line', ['text.ts', 'failure.ts'], 'what was typed is understood before anything is done'),
    only(cli, 'control', ['text.ts', 'failure.ts'], 'asking a process by its control socket knows nobody who asks'),
    only(cli, 'report', ['text.ts'], 'a picture is made of what it is given'),
    only(cli, 'drill', ['text.ts', 'failure.ts'], 'a drill is what it measures; the command gives it its target'),
    only(cli, 'client', ['text.ts', 'failure.ts', 'service.ts', 'control', 'command-line'], 'what finds and asks running apps is no keeper and no command'),
    only(cli, 'keeper', ['text.ts', 'failure.ts', 'service.ts', 'control', 'command-line/version.ts'], 'a keeper is started by a command, and knows none'),
    never('cli: preload', `${cli}/preload\\.ts`, [`${cli}/`], 'it is loaded into the program of a user: nothing of the command goes along'),
    never('cli: core', cli, [`${core}/(?!internal\\.ts)`, 'packages/core/dist/(?!internal\\.)'], 'the command never becomes a generation itself: it uses @handover/core/internal alone'),

    only(load, 'client', [], 'the load client is a product of its own'),
    never('adapters', 'packages/(fastify|express|prom-client)/src', ['packages/core/(src|dist)/(?!(index|internal)\\.)'], 'adapters use the doors of @handover/core')
  ],
  options: {
    doNotFollow: { path: 'node_modules|/dist/' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'require', 'node', 'default', 'types'], extensions: ['.ts', '.mts', '.js', '.mjs'] }
  }
}
