// Bundles the programs into dist/ with esbuild: workspace packages inside, npm packages outside.
import { build } from 'esbuild'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))

/** The npm packages that any workspace package depends on; our own are bundled. */
function npmPackages() {
  const names = new Set()
  for (const group of ['apps', 'libs']) {
    for (const folder of readdirSync(path.join(root, group))) {
      const manifest = JSON.parse(readFileSync(path.join(root, group, folder, 'package.json'), 'utf8'))
      for (const field of ['dependencies', 'peerDependencies']) {
        for (const name of Object.keys(manifest[field] ?? {}))
          if (!name.startsWith('@convoy/')) names.add(name)
      }
    }
  }
  return [...names]
}

/** Builds everything into a folder, which is emptied first. */
export async function buildAll(outdir) {
  rmSync(outdir, { recursive: true, force: true })
  await build({
    absWorkingDir: root,
    entryPoints: {
      convoy: 'apps/cli/src/main.ts',
      compute: 'apps/worker/src/compute.ts',
      'engine-process': 'apps/cli/src/engine-process.ts',
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
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await buildAll(path.resolve(root, process.argv[2] ?? 'dist/app'))
