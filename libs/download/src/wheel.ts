import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'
import { fetchPinned, fetchReason, type FetchOptions } from './download.ts'
import { loadFetch, request, withoutCredentials } from './request.ts'

/** Fetches wheels, which are the registries' only archives of many libraries in C. No Python is needed. */

/** A file on PyPI, pinned. */
export interface Wheel {
  readonly project: string
  readonly file: string
  readonly sha256: string
}

/** Fetches a wheel from the index that pip would ask, as `fetchPinned` does. */
export function fetchWheel(
  { project, file, sha256 }: Wheel,
  folder: string,
  options: FetchOptions,
): Promise<string> {
  const [, version, tag] = file.split('-')
  const python = /^cp3(\d+)$/.exec(tag)?.[1]
  const which = python ? ` --only-binary=:all: --python-version 3.${python}` : ''
  return fetchPinned(
    {
      what: file.split('-').slice(0, 2).join(' '),
      name: file,
      sha256,
      address: () => wheelAddress(`${pipIndex(options.environment)}/${project}/`, file, options),
      command: `pip download --no-deps${which} ${project}==${version}`,
      settings: 'PIP_INDEX_URL (or pip.conf)',
    },
    folder,
    options,
  )
}

/** The index that pip would ask, without a slash at its end: PIP_INDEX_URL, or what pip.conf says, or PyPI. */
export function pipIndex(environment: NodeJS.ProcessEnv): string {
  const index = environment['PIP_INDEX_URL'] || configuredIndex(environment) || 'https://pypi.org/simple'
  return index.replace(/\/*$/, '')
}

/** `index-url` of pip's configuration files; the more special file wins, and in a file `download` before `global`. */
function configuredIndex(environment: NodeJS.ProcessEnv): string | undefined {
  const { PIP_CONFIG_FILE: asked, VIRTUAL_ENV: venv, XDG_CONFIG_HOME: config, HOME } = environment
  const home = HOME || homedir()
  const files = [
    asked,
    venv && path.join(venv, 'pip.conf'),
    path.join(config || path.join(home, '.config'), 'pip', 'pip.conf'),
    path.join(home, '.pip', 'pip.conf'),
    '/etc/pip.conf',
  ]
  for (const file of files) {
    if (!file) continue
    const found = readIndex(file)
    if (found) return found
  }
  return undefined
}

function readIndex(file: string): string | undefined {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
  const found = new Map<string, string>()
  let section = ''
  for (const line of text.split(/\r?\n/)) {
    section = /^\s*\[(.+)\]/.exec(line)?.[1] ?? section
    const value = /^\s*index[-_]url\s*[=:]\s*(\S+)/.exec(line)?.[1]
    if (value !== undefined) found.set(section, value)
  }
  return found.get('download') ?? found.get('global')
}

/** Looks a file up in a project's page of the index (PEP 691 JSON, or the HTML of PEP 503). Throws an Error. */
async function wheelAddress(page: string, file: string, options: FetchOptions): Promise<string> {
  const { environment, timeout, signal } = options
  const accept = 'application/vnd.pypi.simple.v1+json, text/html;q=0.1'
  const shown = withoutCredentials(page)
  await loadFetch()
  const late = new AbortController()
  const watch = setTimeout(() => late.abort(new Error(`no answer within ${timeout / 1000} s`)), timeout)
  let text: string
  try {
    const answer = await request(
      page,
      { headers: { accept }, signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal },
      environment,
    )
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`)
    text = await answer.text()
  } catch (error) {
    throw new Error(`${shown} could not be read: ${fetchReason(error)}`, { cause: error })
  } finally {
    clearTimeout(watch)
  }
  // In either form the address is the one quoted text that holds the file's name at the end of its path.
  const address = new RegExp(`"([^"\\s]*/${file.replaceAll('.', '\\.')})[#"]`).exec(text)?.[1]
  if (address === undefined) throw new Error(`${shown} does not list ${file}`)
  const url = new URL(address, page)
  // A mirror with a password wants it for its files as well; others must not get to see it.
  const from = new URL(page)
  if (url.origin === from.origin) [url.username, url.password] = [from.username, from.password]
  return url.href
}
