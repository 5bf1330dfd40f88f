import js from '@eslint/js'
import { defineConfig, globalIgnores } from 'eslint/config'
import tseslint from 'typescript-eslint'

// Imports point one way: adapters → core's index → generation → roles → channel → native.
const only = (files, patterns) => ({ files, rules: { 'no-restricted-imports': ['error', { patterns }] } })
const never = (group, message) => ({ group, message })

const rolesNeverMeet = never(['./predecessor.js', './successor.js'], 'predecessor and successor know each other only through messages.ts.')
const noWayUp = never(['./generation.js', './beginning.js', './servers.js', './index.js'], 'Only the index and the adapters may know the generation, and only it its parts: imports point from it to the roles, the channel and the addon.')
const pure = never(['node:*', './*.js', '!./errors.js', '!./messages.js', '!./report.js', '!./states.js', '!./native.js', '!./listeners.js', '!./lines.js', '!./status.js', '!./typo.js'], 'This file is pure: it imports no Node module and nothing that does.')

/** The command, from the top; what is in no layer (words, errors, the arguments) may be imported by all, and imports none of them. */
const layers = [
  ['main'], ['run', 'reload-command', 'status-command', 'stop-command', 'drill-command'], ['upgrade'], ['keeper'], ['reload', 'adopt'], ['slot'], ['worker', 'members', 'probe', 'reap']
]
const belowAll = ['apps', 'arguments', 'ask', 'drill', 'drill-target', 'drill-text', 'failure', 'help', 'preload', 'status-text', 'version', 'words']
const noCommandUp = (names, above) => ({
  files: names.map((name) => `packages/cli/src/${name}.ts`),
  rules: {
    '@typescript-eslint/no-restricted-imports': ['error', {
      patterns: [{
        group: above.map((name) => `./${name}.js`),
        // A type brings no code along.
        allowTypeImports: true,
        message: 'Imports point one way: main → commands → upgrade → keeper → reload → slot → worker → members. What a lower one has to say goes by the side that it was given (KeeperOptions, SlotSide, WorkerSide).'
      }]
    }]
  }
})

export default defineConfig(
  globalIgnores(['**/dist/', 'build/', '**/prebuilds/', 'test/programs/syntax-error.mjs', 'test/types/']),
  js.configs.recommended,
  {
    languageOptions: {
      globals: Object.fromEntries(['process', 'console', 'URL', 'URLSearchParams', 'Buffer', 'setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'setImmediate', 'performance', 'AbortController', 'AbortSignal', 'fetch', 'require', 'module', 'structuredClone'].map((name) => [name, 'readonly']))
    }
  },
  {
    files: ['packages/*/src/**/*.ts', 'packages/*/src/**/*.mts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      // Errors are values here: what is thrown or logged is named before.
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowNullish: true, allowBoolean: true }],
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/no-confusing-void-expression': 'off',
      '@typescript-eslint/no-empty-function': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-unnecessary-boolean-literal-compare': 'off',
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/consistent-type-definitions': 'off'
    }
  },
  only(['packages/core/src/{errors,keeper-messages,lines,messages,report,requests,share,states,status,typo}.ts'], [pure]),
  only(['packages/core/src/{predecessor,successor}.ts'], [rolesNeverMeet, noWayUp]),
  only(['packages/core/src/beginning.ts'], [never(['./predecessor.js'], 'The beginning of a generation is the successor\'s.'), noWayUp]),
  only(['packages/core/src/ending.ts'], [never(['./successor.js'], 'The end of a generation is the predecessor\'s.'), noWayUp]),
  only(['packages/core/src/{adopting,aggregate,answers,channel,checkpointing,control,control-files,control-healing,connections,covering,door,drain,exchange,face,name,signals,stderr,host,inventory,kept,launch,listeners,memory-file,movable,moving,native,options,own-socket,peers,places,private,process-status,restoring,saving,section-file,section-frames,sections,servers,socket-moves,state-text,stored-offer,systemd,terminal,fd}.ts'], [rolesNeverMeet, noWayUp]),
  only(['packages/core/src/shared-state.ts'], [noWayUp]),
  only(['packages/core/src/ws*.ts'], [never(['./*.js', '!./index.js', '!./private.js', '!./ws.js', '!./ws-*.js'], 'WebSockets move by the public face alone, as the protocol of any application would; what Node hides stands in private.ts.')]),
  only(['packages/{fastify,express,prom-client}/src/*'], [never(['**/core/**', '@handover/core/*'], 'Adapters use the public face of @handover/core alone.')]),
  only(['packages/cli/src/*.ts'], [{ regex: '^@handover/core(?!/keeper$)|/core/(src|dist)/', message: 'The command never becomes a generation itself: it uses @handover/core/keeper alone.' }]),
  ...layers.slice(1).map((names, index) => noCommandUp(names, layers.slice(0, index + 1).flat())),
  noCommandUp(belowAll, layers.flat()),
  {
    files: ['test/**/*.ts', 'vitest.config.mts'],
    extends: [tseslint.configs.recommended],
    rules: { '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }] }
  }
)
