import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseAllDocuments } from 'yaml'
import type { Manifest } from './check.ts'

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))))

/** Why kustomizations cannot be rendered here, if they cannot. */
export const noKubectl =
  spawnSync('kubectl', ['version', '--client'], { stdio: 'ignore' }).status === 0
    ? undefined
    : 'kubectl is not installed'

/**
 * Copies k8s/ into a folder, with a token as the guide has one made, and an overlay `secured` that uses the component for
 * TLS as the guide says.
 */
export function copyManifests(folder: string, token = '0123456789abcdef'): string {
  const copied = path.join(folder, 'k8s')
  cpSync(path.join(root, 'k8s'), copied, { recursive: true })
  writeFileSync(path.join(copied, 'base', 'token.env'), `CONVOY_TOKEN=${token}\n`)
  const secured = path.join(copied, 'overlays', 'secured')
  mkdirSync(secured)
  writeFileSync(
    path.join(secured, 'kustomization.yaml'),
    'namespace: convoy\nresources: [../cpu]\ncomponents: [../../components/tls]\n',
  )
  return copied
}

/** What `kubectl apply -k` would send for a kustomization. */
export function render(folder: string): Manifest[] {
  const text = execFileSync('kubectl', ['kustomize', folder], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return parseAllDocuments(text).map((document) => document.toJS() as Manifest)
}
