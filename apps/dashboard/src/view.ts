import type { Connection, Pushed } from './connection.ts'

/** A page of the page. One is shown at a time. */
export interface View {
  readonly element: HTMLElement
  /** The connection is there (again): ask for what is shown. */
  refresh(): void
  /** The coordinator sent something by itself. */
  push(message: Pushed): void
  /** What its tab says, which is all that is seen of a page in the background. */
  title?(message: Pushed): void
  /** The colours changed. */
  redraw(): void
  dispose(): void
}

/** A kind of view: its place in the navigation and what makes one. */
export interface ViewKind {
  /** First part of its address after `#/`. */
  readonly path: string
  readonly title: string
  /** @param argument The rest of its address. */
  open(connection: Connection, argument: string): View
}
