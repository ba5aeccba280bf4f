import type { MessageOf, WorkerMessage } from '@convoy/protocol'

/** What makes two gradients of one leaf equal in bits; see ARCHITECTURE.md. */
export type NumericsClass = MessageOf<WorkerMessage, 'hello'>['numerics']

/** Two classes with the same text give the same bits. */
export function numericsText(numerics: NumericsClass): string {
  const { engine, version, precision, instructionSet, threads } = numerics
  return `${engine} ${version}, ${precision}, ${instructionSet}, ${threads} thread${threads === 1 ? '' : 's'}`
}
