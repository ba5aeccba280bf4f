import type { CurveName, LiveHistory, LiveStatus, Rows } from '@convoy/protocol/live'
import { curveNames, sizeOfStep } from '@convoy/protocol/live'
import type { Change, Table } from './chart.ts'

/** What the x axis counts. */
export type Unit = 'step' | 'epoch'

/** Epochs or steps in one step. */
export function scaleOf(history: LiveHistory, unit: Unit): number {
  return unit === 'epoch' ? 1 / (history.about?.stepsPerEpoch ?? 1) : 1
}

/** Curves of a history as a table for a chart. */
export function curves(history: LiveHistory, scale: number, ...names: CurveName[]): Table {
  return [history.rows.step.map((step) => step * scale), ...names.map((name) => history.rows[name])]
}

/** Test accuracies as a table. */
export function tests(history: LiveHistory, scale: number): Table {
  return [history.tests.map(({ step }) => step * scale), history.tests.map(({ accuracy }) => accuracy)]
}

/** Height and width of the images as a table; null where the run says nothing of sizes. */
export function sizes({ rows, about }: LiveHistory, scale: number): Table {
  return [rows.step.map((step) => step * scale), rows.step.map((step) => sizeOfStep(about, step))]
}

/** Where images get another size. */
export function sizeChanges({ about }: LiveHistory, scale: number): Change[] {
  return (about?.sizes ?? [])
    .filter(({ from }) => from > 0)
    .map(({ from, size }) => ({ x: from * scale, label: `${size} px` }))
}

/** Adds rows to those that are there; false where they do not go on from them. */
export function append(rows: Rows, more: Rows): boolean {
  if (more.step.length === 0) return true
  if (rows.step.length > 0 && more.step[0] <= rows.step.at(-1)!) return false
  rows.step.push(...more.step)
  for (const name of curveNames) rows[name].push(...more[name])
  return true
}

/** Progress of a run as a share of 1; undefined where its length is not known. */
export function progressOf(history: LiveHistory, status: LiveStatus): number | undefined {
  const total = history.about?.totalSteps
  return total ? Math.min(1, status.step / total) : undefined
}
