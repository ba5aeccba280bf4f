// Builds into dist/: the programs with esbuild (workspace packages inside, npm packages outside), the page with Vite.
import { build } from 'esbuild'
import { readdirSync, rmSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { brotliCompress, constants, gzip } from 'node:zlib'
import { build as buildPage } from 'vite'
import { npmPackages } from './packages.mjs'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
/** Brotli's best takes 3 s, two thirds of the whole build, and this a tenth of a second, for 8 % more. */
const quality = { params: { [constants.BROTLI_PARAM_QUALITY]: 9 } }

/** Writes every file of a folder compressed beside it, so that serving costs nothing. */
async function compress(folder) {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  )
  await Promise.all(
    files.map(async (entry) => {
      const file = path.join(entry.parentPath, entry.name)
      const bytes = await readFile(file)
      await Promise.all([
        promisify(brotliCompress)(bytes, quality).then((smaller) => writeFile(`${file}.br`, smaller)),
        promisify(gzip)(bytes, { level: 9 }).then((smaller) => writeFile(`${file}.gz`, smaller)),
      ])
    }),
  )
}

/** Builds everything into a folder, which is emptied first. */
async function buildAll(outdir) {
  rmSync(outdir, { recursive: true, force: true })
  const programs = build({
    absWorkingDir: root,
    entryPoints: {
      convoy: 'apps/cli/src/main.ts',
      compute: 'apps/worker/src/compute.ts',
      'measure-engine': 'apps/cli/src/measure-engine.ts',
    },
    outdir,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    external: npmPackages(),
    sourcemap: true,
    logLevel: 'warning',
  })
  const page = buildPage({
    configFile: false,
    root: path.join(root, 'apps', 'dashboard'),
    // Relative, so that the page can stand behind a path prefix of a proxy.
    base: './',
    logLevel: 'warn',
    build: {
      outDir: path.join(outdir, 'dashboard'),
      emptyOutDir: true,
      // Its content policy forbids inline scripts and styles, and the preloads of modules are not needed for one script.
      assetsInlineLimit: 0,
      modulePreload: false,
      target: 'es2022',
      // TensorFlow.js, which is loaded when it is needed.
      chunkSizeWarningLimit: 1_000,
    },
  })
  await Promise.all([programs, page])
  await compress(path.join(outdir, 'dashboard'))
}

try {
  await buildAll(path.resolve(root, process.argv[2] ?? 'dist/app'))
} catch (error) {
  // esbuild has said what is wrong in the sources.
  if (!error.errors) process.stderr.write(`${error.message}\n`)
  process.exit(1)
}
