// Builds into dist/: the programs with esbuild (workspace packages inside, npm packages outside), the page with Vite.
import { build } from 'esbuild'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { build as buildPage } from 'vite'
import { npmPackages } from './packages.mjs'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))

/** Writes every file of a folder compressed beside it, so that serving costs nothing. */
function compress(folder) {
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const file = path.join(entry.parentPath, entry.name)
    const bytes = readFileSync(file)
    writeFileSync(`${file}.br`, brotliCompressSync(bytes))
    writeFileSync(`${file}.gz`, gzipSync(bytes, { level: 9 }))
  }
}

/** Builds everything into a folder, which is emptied first. */
async function buildAll(outdir) {
  rmSync(outdir, { recursive: true, force: true })
  await build({
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
  await buildPage({
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
  compress(path.join(outdir, 'dashboard'))
}

try {
  await buildAll(path.resolve(root, process.argv[2] ?? 'dist/app'))
} catch (error) {
  // esbuild has said what is wrong in the sources.
  if (!error.errors) process.stderr.write(`${error.message}\n`)
  process.exit(1)
}
