import js from '@eslint/js'
import nx from '@nx/eslint-plugin'
import prettier from 'eslint-config-prettier'
import { createProjectGraphAsync } from '@nx/devkit'
import tseslint from 'typescript-eslint'

/** An arrow in the house goes down only; see ARCHITECTURE.md. */
const floors = [
  ['floor:0', []],
  ['floor:1', ['floor:0', 'floor:1']],
  ['floor:2', ['floor:0', 'floor:1', 'floor:2']],
  ['floor:3', ['floor:0', 'floor:1', 'floor:2']],
  ['floor:4', ['floor:0', 'floor:1', 'floor:2', 'floor:3']],
]

/** The most lines of a function, comments and blank lines aside. */
const lines = (max) => ({
  'max-lines-per-function': ['error', { max, skipBlankLines: true, skipComments: true }],
})
/** Tables that are written as functions. */
const tables = [
  'libs/engine*/**/{calls,library2,library3}.ts',
  'libs/arena/src/kernels.ts',
  'apps/coordinator/**/notes.ts',
]

// The boundary rule reads Nx's project graph from its cache, and passes everything where there is none.
process.env.NX_DAEMON = 'false'
await createProjectGraphAsync()

export default tseslint.config(
  { ignores: ['**/node_modules', '**/dist', 'runs', '.nx'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    plugins: { '@nx': nx },
    rules: {
      '@nx/enforce-module-boundaries': [
        'error',
        {
          enforceBuildableLibDependency: false,
          depConstraints: floors.map(([sourceTag, onlyDependOnLibsWithTags]) => ({
            sourceTag,
            onlyDependOnLibsWithTags,
          })),
        },
      ],
      // An interface may promise what an implementation has at once.
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/no-base-to-string': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
    },
  },
  {
    files: ['**/*.mjs'],
    languageOptions: { globals: { process: 'readonly', console: 'readonly' } },
  },
  { files: ['**/*.ts', '**/*.mjs'], rules: lines(70) },
  { files: ['apps/coordinator/**/*.ts'], rules: lines(60) },
  // Engines are long lists of calls of a library in C, and a reference that is read beside its formula.
  { files: ['libs/engine*/**/*.ts'], rules: lines(120) },
  {
    files: ['test/**/*.ts', '**/*.{test,tests}.ts', ...tables],
    rules: { 'max-lines-per-function': 'off' },
  },
  prettier,
)
