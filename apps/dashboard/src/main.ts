import 'uplot/dist/uPlot.min.css'
import './style.css'
import { ClassifierView } from './classifier.ts'
import { Connection, type LinkState, type Pushed } from './connection.ts'
import { byId, el, setText } from './dom.ts'
import { ExplorerView } from './explorer.ts'
import { RunsView } from './runs.ts'
import { watchTheme } from './theme.ts'
import { TrainingView } from './training.ts'
import type { View, ViewKind } from './view.ts'

/** Every view; those with a title are in the navigation. */
const kinds: readonly ViewKind[] = [
  { path: '', title: 'Training', open: (connection) => new TrainingView(connection, '') },
  { path: 'runs', title: 'Runs', open: (connection, names) => new RunsView(connection, names) },
  {
    path: 'run',
    title: '',
    open: (connection, name) => new TrainingView(connection, decodeURIComponent(name)),
  },
  {
    path: 'classify',
    title: 'Classify',
    open: (connection, name) => new ClassifierView(connection, decodeURIComponent(name)),
  },
  { path: 'explore', title: 'Explore', open: (connection) => new ExplorerView(connection) },
]

const links: Record<LinkState, string> = {
  connecting: 'connecting',
  open: 'live',
  lost: 'not connected',
  token: 'locked',
}

const connection = new Connection()
const main = byId('main')
const nav = document.querySelector('nav')!
let view: View | undefined
/** Whether the run was over when the coordinator last spoke. */
let over = false
/** What came while the page was not seen: the newest, for the rest is asked for again. */
let unseen: Pushed[] = []
const UNSEEN = 10

for (const { path, title } of kinds) {
  if (title) nav.append(el('a', { href: `#/${path}`, 'data-path': path }, title))
}

function open(): void {
  const [, path = '', argument = ''] = /^#\/([^/]*)\/?(.*)$/.exec(location.hash) ?? []
  const kind = kinds.find((one) => one.path === path) ?? kinds[0]
  view?.dispose()
  view = kind.open(connection, argument)
  main.replaceChildren(view.element)
  for (const link of nav.querySelectorAll('a')) {
    if (link.dataset['path'] === kind.path) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  if (connection.state === 'open') view.refresh()
}

/** Asks for the token in place of the view. */
function askToken(): void {
  const field = el('input', {
    id: 'token',
    type: 'password',
    autocomplete: 'current-password',
    required: true,
  })
  const form = el(
    'form',
    { class: 'card token' },
    el('h1', {}, 'Token'),
    el('p', { id: 'token-reason' }, connection.reason),
    el('label', { for: 'token' }, "The coordinator's --token"),
    field,
    el('button', { type: 'submit' }, 'Show the run'),
  )
  field.setAttribute('aria-describedby', 'token-reason')
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    connection.token = field.value
  })
  main.replaceChildren(form)
  field.focus()
}

connection.onstate = () => {
  const { state } = connection
  const link = byId('link')
  setText(link, links[state])
  link.dataset['state'] = state
  const banner = byId('banner')
  banner.hidden = state !== 'lost'
  banner.dataset['over'] = String(over)
  const lost = over
    ? 'The run is over and its coordinator has ended; this is the last that it said.'
    : 'The coordinator does not answer; the page goes on when it does.'
  setText(banner, state === 'lost' ? connection.reason || lost : '')
  if (state === 'token') askToken()
  if (state !== 'open') return
  if (view && main.contains(view.element)) view.refresh()
  else open()
}
connection.onpush = (message) => {
  over = /^(finished|stopped|diverged)$/.test(message.status.phase)
  view?.title?.(message)
  if (document.hidden) unseen = [...unseen, message].slice(-UNSEEN)
  else view?.push(message)
}
document.addEventListener('visibilitychange', () => {
  if (document.hidden || unseen.length === 0) return
  for (const message of unseen.splice(0)) view?.push(message)
  if (connection.state === 'open') view?.refresh()
})
addEventListener('hashchange', open)
watchTheme(byId('theme'), () => view?.redraw())
open()
connection.connect()
