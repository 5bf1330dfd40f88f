import js from '@eslint/js'
import { defineConfig, globalIgnores } from 'eslint/config'
import tseslint from 'typescript-eslint'

/** Names that Node does not document: fields with an underscore, methods of its handles, descriptions of its symbols. */
const hidden = '^(_[a-zA-Z].*|onconnection|getsockname|writeQueueSize|(read|recv)(Start|Stop))$'
const hiddenSymbol = '^(k[A-Z][a-z]\\w+|state symbol|http\\.server\\.connections)$'

export default defineConfig(
  globalIgnores(['**/dist/', 'build/', '**/prebuilds/', 'docs/.vitepress/.temp/', 'docs/.vitepress/cache/', 'test/programs/syntax-error.mjs', 'test/types/']),
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
  {
    // Measures of a house that can be read: texts of messages may be longer than a line.
    files: ['packages/{core,cli}/src/**/*.ts'],
    rules: {
      'max-lines': ['error', { max: 400 }],
      'max-lines-per-function': ['error', { max: 60 }]
    }
  },
  {
    // Only a line with a text of at least four words, a message, may be longer.
    files: ['packages/*/src/**/*.ts'],
    rules: { 'max-len': ['error', { code: 140, ignoreRegExpLiterals: true, ignorePattern: String.raw`(?<=[\s([{]|^)(['"\x60])(?:(?!\1).)* (?:(?!\1).)* (?:(?!\1).)* (?:(?!\1).)*\1` }] }
  },
  {
    files: ['test/**/*.ts'],
    rules: { 'max-len': ['error', { code: 140, ignoreStrings: true, ignoreTemplateLiterals: true, ignoreRegExpLiterals: true, ignoreUrls: true }] }
  },
  {
    files: ['packages/*/src/**/*.ts', 'packages/*/src/**/*.mts'],
    ignores: ['packages/core/src/platform/node/**'],
    rules: {
      'no-restricted-syntax': ['error', ...[
        `MemberExpression > Identifier.property[name=/${hidden}/]`,
        `MemberExpression > Literal.property[value=/${hidden}/]`,
        `Property > .key[name=/${hidden}/]`,
        `:matches(TSPropertySignature, TSMethodSignature) > .key[name=/${hidden}/]`,
        `CallExpression[callee.object.name=/^(Object|Reflect)$/] > Literal[value=/${hidden}/]`,
        `BinaryExpression[operator="in"] > Literal.left[value=/${hidden}/]`,
        `Literal[value=/${hiddenSymbol}/]`,
        'MemberExpression[object.name="process"][property.name="binding"]'
      ].map((selector) => ({ selector, message: 'Only packages/core/src/platform/node touches private parts of Node: each has its reason, a check and a fallback there.' }))]
    }
  },
  {
    // Who may import whom stands in .dependency-cruiser.mjs.
    files: ['test/**/*.ts', 'vitest.config.mts'],
    extends: [tseslint.configs.recommended],
    rules: { '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }] }
  },
  {
    files: ['test/**/*.ts'],
    ignores: ['test/helpers/{built,internals}.ts'],
    rules: {
      'no-restricted-imports': ['error', { patterns: [{
        regex: 'packages/[^/]+/(src|dist)/',
        message: 'Internal modules are named in test/helpers/internals.ts and built.ts alone: a module that moves costs one line there.'
      }] }]
    }
  }
)
