import { makeFolder as makeFolders } from '@convoy/download'
import { ConvoyError } from '@convoy/errors'
import { mkdir, readFile, rm } from 'node:fs/promises'
import path from 'node:path'
import { dataSchema, trainingSchema, type CoordinatorConfig } from '../config.ts'
import { exists, writeDurably } from './checkpoints.ts'

/** The folder of a run. */
export interface Folder {
  readonly name: string
  readonly directory: string
  /** Throws `error`, for which the run does not come about; a folder that was made for it is removed. */
  readonly giveUp: (error: unknown) => Promise<never>
}

/** A name for a run that was given none: the time and the model. */
function defaultRunName(model: string, now = new Date()): string {
  return `${now.toISOString().slice(0, 19).replace(/[T:]/g, '-')}-${model}`
}

/** The folder of the run: the one that was named, there already or not, or else a new one. Throws E_RUN. */
export async function makeFolder(config: CoordinatorConfig, model: string): Promise<Folder> {
  const usual = config.name ?? defaultRunName(model.replace(/[^\w.-]/g, 'x'))
  try {
    await makeFolders(path.resolve(config.runs))
    for (let n = 1; ; n++) {
      const name = n === 1 ? usual : `${usual}-${n}`
      const directory = path.join(config.runs, name)
      const made = await mkdir(directory).then(
        () => true,
        (error: NodeJS.ErrnoException) => {
          if (error.code !== 'EEXIST') throw error
          return false
        },
      )
      const giveUp = async (error: unknown): Promise<never> => {
        if (made) await rm(directory, { recursive: true, force: true })
        throw error
      }
      if (made || config.name !== undefined) return { name, directory, giveUp }
    }
  } catch (error) {
    throw new ConvoyError(
      'E_RUN',
      `cannot make the folder ${path.join(config.runs, usual)}: ${(error as Error).message}`,
      'Choose another place with --runs DIR.',
    )
  }
}

/** Keeps the settings beside the run, for people and for `convoy evaluate --run`. Throws E_RUN. */
export async function keepConfig(directory: string, config: CoordinatorConfig): Promise<void> {
  const file = path.join(directory, 'config.json')
  const keys = [...Object.keys(trainingSchema.shape), ...Object.keys(dataSchema.shape)]
  // Where it listened and with which token is not the run's.
  const shown = Object.fromEntries(Object.entries(config).filter(([key]) => keys.includes(key)))
  if (await exists(file)) return
  await writeDurably(file, Buffer.from(`${JSON.stringify(shown, null, 2)}\n`)).catch((error: Error) => {
    throw new ConvoyError(
      'E_RUN',
      `cannot write ${file}: ${error.message}`,
      'Make room there, or choose another place with --runs DIR.',
    )
  })
}

/** The settings of a run that was kept. Throws E_RUN where there is none. */
export async function readRunConfig(directory: string): Promise<Partial<CoordinatorConfig>> {
  try {
    return JSON.parse(
      await readFile(path.join(directory, 'config.json'), 'utf8'),
    ) as Partial<CoordinatorConfig>
  } catch (error) {
    throw new ConvoyError(
      'E_RUN',
      `there is no run at ${directory}: ${(error as Error).message}`,
      'Give the name of a folder under runs/, or --runs DIR.',
    )
  }
}
