// Runs a TypeScript program of the tests: node tools/run.mjs FILE [ARGUMENT …]
import { build } from 'esbuild'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { npmPackages } from './packages.mjs'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const [file, ...rest] = process.argv.slice(2)
// As deep below the root as the tests, which look for the root from where they are.
const name = `${path.basename(path.dirname(file))}-${path.basename(file, '.ts')}.mjs`
const outfile = path.join(root, 'dist', name)
await build({
  entryPoints: [path.resolve(file)],
  outfile,
  bundle: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  external: [...npmPackages(), 'playwright-core', 'axe-core', 'prettier'],
  logLevel: 'warning',
})
process.argv = [process.argv[0], outfile, ...rest]
await import(pathToFileURL(outfile).href)
