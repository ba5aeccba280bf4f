import { execFileSync } from 'node:child_process'
import path from 'node:path'
import { kueue } from './programs.ts'

/** Where operators publish the definitions of their kinds, and Kueue all that it is installed by: a module of Go's proxy, and a folder in it. */
const modules = {
  kueue: [`sigs.k8s.io/kueue@${kueue.version}`, 'config/default'],
  keda: ['github.com/kedacore/keda/v2@v2.21.0', 'config/crd/bases'],
  prometheus: [
    'github.com/prometheus-operator/prometheus-operator@v0.85.0',
    'example/prometheus-operator-crd',
  ],
} as const

/** The file or, without a name, the folder of what an operator publishes. Go's checksum database vouches for it. */
export function definitions(operator: keyof typeof modules, file = ''): string {
  const [module, folder] = modules[operator]
  const text = execFileSync('go', ['mod', 'download', '-json', module], { encoding: 'utf8', cwd: '/' })
  return path.join((JSON.parse(text) as { Dir: string }).Dir, folder, file)
}
