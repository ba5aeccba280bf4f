import { asConvoyError, ConvoyError } from '@convoy/errors'
import type { Engine } from './engine.ts'

/** What was asked for. */
export interface EngineChoice {
  /** `auto`, or one of a vendor's names. */
  readonly engine: string
  readonly precision: 'auto' | 'float32' | 'tf32' | 'bf16'
  /** Of the CPU; a GPU has no use for them. */
  readonly threads: number
  /** Which GPU, from 0, where the engine is cudnn or webgpu. */
  readonly device: number
  /** Refuse anything but a GPU. */
  readonly gpu: boolean
}

/** A library that computes, as the list of them (libs/engines) has it: nothing of it is loaded before it is tried. */
export interface EngineVendor {
  /** What `--engine` may say. One that is in neither list below takes the first of them that runs. */
  readonly names: readonly string[]
  /** Those that compute on a GPU, the fastest first. */
  readonly onGpu: readonly string[]
  /** Those that compute on the CPU, the fastest first. */
  readonly onCpu: readonly string[]
  /** How many GPUs it finds, for vendors that can tell. `auto` tries GPUs where there is one. Never throws. */
  gpuCount?(): Promise<number>
  /** Makes the engine that `choice.engine` names. Throws E_ENGINE or E_ENGINE_GPU with what stands in the way. */
  create(choice: EngineChoice): Promise<Engine>
}

/**
 * Makes the engine that was asked for; for `auto`, and a name that a vendor has for several, the fastest that runs on this
 * machine: on GPUs first, each in the order of `vendors`. Throws E_ENGINE or E_ENGINE_GPU with what stands in the way.
 */
export async function selectEngine(vendors: readonly EngineVendor[], choice: EngineChoice): Promise<Engine> {
  const { engine, gpu } = choice
  const one = vendors.find(({ onGpu, onCpu }) => onGpu.includes(engine) || onCpu.includes(engine))
  if (one) return create(one, choice)

  const asked = engine === 'auto' ? vendors : vendors.filter(({ names }) => names.includes(engine))
  const tryGpus = gpu || (engine === 'auto' && (await findGpu(vendors)))
  const candidates = [
    ...(tryGpus ? asked.flatMap((vendor) => vendor.onGpu.map((name) => ({ vendor, name, gpu: true }))) : []),
    ...(gpu ? [] : asked.flatMap((vendor) => vendor.onCpu.map((name) => ({ vendor, name, gpu: false })))),
  ]
  const reasons: ConvoyError[] = []
  for (const { vendor, name, gpu } of candidates) {
    try {
      return await create(vendor, { ...choice, engine: name, gpu })
    } catch (error) {
      const reason = asConvoyError(error)
      // Not installed is what `auto` is there for; anything else is a defect that must not pass as slowness.
      if (reason.code !== 'E_ENGINE' && reason.code !== 'E_ENGINE_GPU') throw reason
      reasons.push(reason)
    }
  }
  const last = reasons.at(-1)
  if (!last) {
    const names = vendors.flatMap((vendor) => vendor.names)
    throw new ConvoyError('E_ENGINE', `there is no engine ${engine}`, `Use auto, or ${names.join(', ')}.`)
  }
  if (!gpu || reasons.length === 1) throw last
  // Of the ways to a GPU, any may be the one that was meant.
  throw new ConvoyError(last.code, reasons.map(({ message }) => message).join('; '), reasons[0].remedy)
}

async function create(vendor: EngineVendor, choice: EngineChoice): Promise<Engine> {
  try {
    return await vendor.create(choice)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error
    throw new ConvoyError(
      'E_ENGINE',
      `what the engine ${choice.engine} needs is not part of this installation`,
      'Use an image that has it, or another --engine.',
      { cause: error },
    )
  }
}

async function findGpu(vendors: readonly EngineVendor[]): Promise<boolean> {
  for (const vendor of vendors) if (((await vendor.gpuCount?.()) ?? 0) > 0) return true
  return false
}
