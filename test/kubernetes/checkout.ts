import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { ContainerEngine } from '../containers/engine.ts'
import { root } from '../convoy.ts'
import type { Cluster } from './cluster.ts'

/** What a reader of the guide sets: a run that is small and says who computed what. */
export const settings = {
  CONVOY_DATA: 'synthetic',
  CONVOY_LIMIT_TRAIN: '2048',
  CONVOY_LIMIT_TEST: '256',
  CONVOY_WIDTH: '0.25',
  CONVOY_BATCH_SIZE: '128',
  CONVOY_EPOCHS: '1000',
  CONVOY_EVALUATE_EVERY: '0',
  CONVOY_CHECKPOINT_EVERY: '2',
  CONVOY_LEDGER: 'true',
}

/** Makes `docker` a command that builds with the engine at hand, and pushes into the nodes. */
export function shimDocker(engine: ContainerEngine, cluster: Cluster): void {
  const variables = ['CONTAINERS_CONF', 'CONTAINERS_STORAGE_CONF', 'TMPDIR', 'DOCKER_HOST']
  const exported = variables
    .filter((name) => engine.environment[name])
    .map((name) => `export ${name}="${engine.environment[name]}"`)
  const file = path.join(cluster.bin, 'docker')
  writeFileSync(
    file,
    `#!/bin/bash
set -e -o pipefail
${exported.join('\n')}
case $1 in
build) shift; exec ${engine.command} build --network host "$@" ;;
push) ${engine.command} save "$2" | { ${cluster.loading}; } ;;
*) exit 2 ;;
esac
`,
  )
  chmodSync(file, 0o755)
}

/** A copy of the repository as a reader has it, with the settings of a small run and nodes of two cores. */
export function checkout(place: string): void {
  const files = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
  })
  for (const file of files.split('\0').filter((name) => name && existsSync(path.join(root, name))))
    cpSync(path.join(root, file), path.join(place, file), { recursive: true })
  edit(path.join(place, 'k8s/base/kustomization.yaml'), (text) => {
    const literals = Object.entries(settings).map(([key, value]) => `      - ${key}=${value}\n`)
    return text.replace('      - CONVOY_DATA=cifar10\n', literals.join(''))
  })
  for (const file of ['base/worker.yaml', 'overlays/kueue/job.yaml'])
    edit(path.join(place, 'k8s', file), (text) =>
      text
        .replace("requests: { cpu: '1', ", 'requests: { cpu: 50m, ')
        .replace("limits: { cpu: '1', ", 'limits: { cpu: 300m, '),
    )
  edit(path.join(place, 'k8s/base/coordinator.yaml'), (text) => text.replace('cpu: 500m', 'cpu: 50m'))
}

export function edit(file: string, change: (text: string) => string): void {
  const text = readFileSync(file, 'utf8')
  const changed = change(text)
  if (changed === text) throw new Error(`nothing to change in ${file}`)
  writeFileSync(file, changed)
}

/** Puts an image of one program, which needs nothing else, into a file. */
export function buildImageOf(
  engine: ContainerEngine,
  tag: string,
  [program, ...args]: string[],
  file: string,
): void {
  const place = `${file}.d`
  mkdirSync(place)
  cpSync(program, path.join(place, 'program'), { dereference: true })
  const entrypoint = JSON.stringify(['/manager', ...args])
  writeFileSync(
    path.join(place, 'Dockerfile'),
    `FROM scratch\nCOPY program /manager\nUSER 1000\nENTRYPOINT ${entrypoint}\n`,
  )
  engine.run('build', '-t', tag, place)
  engine.run('save', '-o', file, tag)
}
