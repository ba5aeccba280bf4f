import { ConvoyError, isErrorCode } from '@convoy/errors'
import type { Connection } from './connection.ts'
import { el } from './dom.ts'

/** Bytes of an image that the coordinator takes; it says so too. */
const LARGEST = 20_000_000

/**
 * An image as RGB bytes [side, side, 3], decoded and resized by the coordinator: as it does for training and
 * `convoy predict`, where a browser's resizing would give other pixels. Throws E_DATA_IMAGE, E_UNREACHABLE, E_TOKEN.
 */
export async function decodeImage(connection: Connection, file: File, side: number): Promise<Uint8Array> {
  if (file.size > LARGEST) {
    throw new ConvoyError(
      'E_DATA_IMAGE',
      `${file.name} has ${Math.round(file.size / 1e6)} MB`,
      'Give an image of at most 20 MB.',
    )
  }
  const address = `image?side=${side}&name=${encodeURIComponent(file.name.slice(0, 100))}`
  const answer = await ask(connection, address, { method: 'POST', body: file })
  return new Uint8Array(await answer.arrayBuffer())
}

/** Asks the coordinator, with the token that the page has. Throws its answer where that is an error, or E_UNREACHABLE. */
export async function ask(connection: Connection, address: string, options: RequestInit): Promise<Response> {
  const { token } = connection
  const headers: HeadersInit = token === null ? {} : { authorization: `Bearer ${token}` }
  const answer = await fetch(address, { ...options, headers }).catch(() => {
    throw new ConvoyError(
      'E_UNREACHABLE',
      'the coordinator does not answer',
      'Start it again (a run that is over ends its coordinator, unless it has --stay), then try again.',
    )
  })
  if (answer.ok) return answer
  const text = (await answer.text()).trim()
  let told: { code?: unknown; message?: unknown; remedy?: unknown } = {}
  try {
    told = JSON.parse(text) as object
  } catch {
    // In plain words.
  }
  throw new ConvoyError(
    isErrorCode(told.code) ? told.code : answer.status === 401 ? 'E_TOKEN' : 'E_RUN',
    typeof told.message === 'string' ? told.message : text,
    typeof told.remedy === 'string' ? told.remedy : 'Try again in a while.',
  )
}

/** A file input, and whatever is dropped on the view or pasted: all of it goes to `take`, one file at least. */
export function fileInput(
  view: HTMLElement,
  label: string,
  attributes: Readonly<Record<string, string>>,
  signal: AbortSignal,
  take: (files: readonly File[]) => void,
): HTMLElement {
  const input = el('input', { type: 'file', ...attributes })
  const give = (list: FileList | undefined | null) => {
    if (list?.length) take([...list])
  }
  input.addEventListener('change', () => {
    give(input.files)
    // So that the same file can be chosen again.
    input.value = ''
  })
  view.addEventListener('dragover', (event) => {
    event.preventDefault()
    view.classList.add('dropping')
  })
  view.addEventListener('dragleave', () => view.classList.remove('dropping'))
  view.addEventListener('drop', (event) => {
    event.preventDefault()
    view.classList.remove('dropping')
    give(event.dataTransfer?.files)
  })
  document.addEventListener('paste', (event) => give(event.clipboardData?.files), { signal })
  return el('label', { class: 'file' }, label, input)
}

/** An error as on the command line: its code, what happened, and what to do about it. */
export function errorText(thrown: unknown): string {
  if (!(thrown instanceof ConvoyError)) return String(thrown)
  return `${thrown.code}: ${thrown.message}. ${thrown.remedy}`
}
