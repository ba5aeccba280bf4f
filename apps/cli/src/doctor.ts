import { isOffline } from '@convoy/download'
import type { EngineChoice } from '@convoy/engine'
import { canFetchOnednn, onednnStatus } from '@convoy/engine-onednn'
import { webgpuAdapters, webgpuIsSetUp } from '@convoy/engine-tfjs'
import { createEngine } from '@convoy/engines'
import { asConvoyError } from '@convoy/errors'
import { spawnSync } from 'node:child_process'
import { arch, cpus, platform } from 'node:os'
import { allowance, allowanceText, workersFor } from './machine.ts'
import { slowness } from './onednn.ts'
import { EXIT } from './schemas.ts'

interface Finding {
  readonly name: string
  readonly ok: boolean
  readonly text: string
  readonly advice?: string
}

/** Runs a program and returns the first line that it prints, or undefined where there is none. */
function firstLine(command: string, args: string[]): string | undefined {
  const result = spawnSync(command, args, { encoding: 'utf8', timeout: 5_000 })
  return result.status === 0 ? result.stdout.split('\n')[0] : undefined
}

async function tryEngine(name: string, choice: Partial<EngineChoice>): Promise<Finding> {
  try {
    const engine = await createEngine({
      engine: 'auto',
      precision: 'auto',
      threads: 1,
      device: 0,
      gpu: false,
      ...choice,
    })
    engine.dispose()
    return { name, ok: true, text: engine.description }
  } catch (thrown) {
    const error = asConvoyError(thrown)
    return { name, ok: false, text: error.message, advice: error.remedy }
  }
}

/** Each adapter of WebGPU, and whether a gradient that it computed is right. */
async function tryWebgpu(): Promise<Finding[]> {
  const adapters = webgpuIsSetUp() ? await webgpuAdapters().catch(() => []) : []
  if (adapters.length === 0) return [await tryEngine('WebGPU', { engine: 'webgpu' })]
  const findings: Finding[] = []
  for (const [device, { software }] of adapters.entries()) {
    const found = await tryEngine(`WebGPU ${device}`, { engine: 'webgpu', device })
    const by = software ? '; taken only where --engine webgpu asks for it' : ''
    findings.push(
      found.ok ? { ...found, text: `${found.text}; a gradient that it computed is right${by}` } : found,
    )
  }
  return findings
}

/** How this machine gets oneDNN. */
function onednnAdvice(install: string): string {
  const why = `without it training is ${slowness()}`
  if (canFetchOnednn())
    return isOffline(process.env)
      ? `CONVOY_OFFLINE is set: unset it for ${install} (39 MB from PyPI), or install the system’s own; ${why}`
      : `the first training fetches it (39 MB from PyPI), and so does ${install}; ${why}`
  // Without SVE, oneDNN has few kernels for ARM; TensorFlow's wheel brings ARM's library.
  const arm = arch() === 'arm64' && platform() === 'linux' && !install.includes('tensorflow')
  return `${install}${arm ? ', or ./convoy setup tensorflow, whose oneDNN has ARM’s own kernels (bench engine tells)' : ''}; ${why}`
}

/** `convoy doctor`: what this machine can run, and how to make it faster. */
export async function doctor({ json }: { json?: boolean }): Promise<number> {
  const findings: Finding[] = []
  findings.push({
    name: 'machine',
    ok: true,
    text: `${cpus()[0]?.model.trim() ?? arch()}, ${cpus().length} cores, ${platform()} ${arch()}, Node.js ${process.versions.node}`,
  })
  const allowed = allowance()
  const { count, bound } = workersFor(allowed, 1)
  findings.push({
    name: 'may use',
    ok: true,
    text: `${allowanceText(allowed)}: ${count} worker${count === 1 ? '' : 's'}${bound === undefined ? '' : `, as ${bound} allows`}`,
  })
  const onednn = onednnStatus()
  findings.push(
    onednn.found
      ? {
          name: 'oneDNN',
          ok: true,
          text: `${onednn.version} at ${onednn.path}, ${onednn.instructionSet}, ${onednn.bf16 ? `bf16 and float32 (${onednn.faster} is the faster, and what auto takes)` : 'float32 (this processor has no bf16)'}`,
        }
      : {
          name: 'oneDNN',
          ok: false,
          text: onednn.reason,
          advice: onednnAdvice(onednn.install),
        },
  )
  findings.push(await tryEngine('WebAssembly', { engine: 'tfjs-wasm' }))
  findings.push(await tryEngine('libtensorflow', { engine: 'tfjs-tensorflow' }))
  const gpu = firstLine('nvidia-smi', ['--query-gpu=name,driver_version', '--format=csv,noheader'])
  findings.push({
    name: 'NVIDIA GPU',
    ok: gpu !== undefined,
    text: gpu ?? 'none found (nvidia-smi does not answer)',
  })
  const cudnn = await tryEngine('cuDNN', { engine: 'cudnn' })
  findings.push(cudnn.ok ? { ...cudnn, text: `${cudnn.text}; a gradient that it computed is right` } : cudnn)
  findings.push(...(await tryWebgpu()))
  if (gpu !== undefined)
    findings.push(await tryEngine('libtensorflow on the GPU', { engine: 'tfjs-tensorflow', gpu: true }))
  for (const tool of ['docker', 'podman']) {
    const version = firstLine(tool, ['--version'])
    findings.push({
      name: tool,
      ok: version !== undefined,
      text: version ?? 'not installed (only container tests use it)',
    })
  }
  const chosen = await tryEngine('auto takes', {})
  findings.push(chosen)

  if (json) {
    for (const finding of findings)
      process.stdout.write(`${JSON.stringify({ event: 'finding', ...finding })}\n`)
  } else {
    for (const { name, ok, text, advice } of findings) {
      process.stdout.write(`${ok ? 'yes' : 'no '}  ${name.padEnd(13)} ${text}\n`)
      if (advice) process.stdout.write(`     ${''.padEnd(13)} → ${advice}\n`)
    }
  }
  return chosen.ok ? EXIT.done : EXIT.failed
}
