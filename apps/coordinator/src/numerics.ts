import type { MessageOf, WorkerMessage } from '@convoy/protocol'

/** What makes two gradients of one leaf equal in bits; see ARCHITECTURE.md. */
export type NumericsClass = MessageOf<WorkerMessage, 'hello'>['numerics']

/** Two classes with the same text give the same bits. */
export function numericsText(numerics: NumericsClass): string {
  const { engine, version, precision, instructionSet, threads } = numerics
  return `${engine} ${version}, ${precision}, ${instructionSet}, ${threads} thread${threads === 1 ? '' : 's'}`
}

/** The options that have a worker on the same kind of machine compute in a class, of which the text is given. */
export function numericsOptions(text: string): string {
  const found = /^(\S+) .*, (float32|tf32|bf16), .*, (\d+) threads?$/.exec(text)
  if (!found) return 'the options of its first worker'
  const [, engine, precision, threads] = found
  return `--engine ${engine} --precision ${precision} --threads ${threads}`
}
