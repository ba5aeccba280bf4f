import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))

/** The npm packages that any workspace package depends on; our own are bundled. */
export function npmPackages() {
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
