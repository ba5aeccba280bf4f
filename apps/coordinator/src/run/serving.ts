import { trainedLayout } from '@convoy/model'
import type { Cluster } from '../cluster/index.ts'
import type { CoordinatorConfig } from '../config.ts'
import { CoordinatorServer, type Page } from '../server/index.ts'
import type { Training } from '../training/index.ts'
import { Dashboard, Metrics, type History } from '../watching/index.ts'
import type { Admission } from './admission.ts'
import type { Listeners } from './listeners.ts'

/** A worker may always send so much, in bytes: the logits of test images can be more than a small gradient. */
const SMALLEST_LIMIT = 1 << 20

/** All that a run answers on its port: workers, the page, probes and Prometheus. */
export class Serving {
  readonly #server: CoordinatorServer
  readonly #metrics: Metrics
  #leaving = false

  /** @param history What the page shows of earlier sessions. */
  constructor(
    config: CoordinatorConfig,
    cluster: Cluster,
    training: Training,
    admission: Admission,
    history: History,
    listeners: Listeners,
  ) {
    const { run, model } = admission.subject
    const metrics = new Metrics({ cluster, workersWanted: () => training.workersWanted })
    const refused = metrics.refused.bind(metrics)
    const { token, runs } = config
    const dashboard = new Dashboard({ run, runs, history, cluster, token, refused })
    listeners.count(metrics)
    listeners.add(dashboard)
    this.#metrics = metrics
    this.#server = new CoordinatorServer(config, {
      cluster,
      dashboard,
      refused,
      largestPayload: Math.max(4 * trainedLayout(model).size, SMALLEST_LIMIT),
      admit(hello) {
        cluster.checkBan(hello)
        return admission.admit(hello)
      },
      page: (route) => this.#page(route),
    })
  }

  #page(route: string): Page | undefined | Promise<Page> {
    const text = (status: number, body: string) => ({ status, type: 'text/plain', body: `${body}\n` })
    switch (route) {
      case '/healthz':
        return text(200, 'ok')
      case '/readyz':
        // Workers may come from the moment that it listens until it says goodbye.
        return this.#leaving ? text(503, 'the run is over') : text(200, 'ready')
      case '/metrics':
        return this.#metrics.text().then((body) => ({ status: 200, type: Metrics.type, body }))
      default:
        return undefined
    }
  }

  /** Starts to listen; resolves with where workers connect. Throws whatever the server throws. */
  listen(): Promise<string> {
    return this.#server.listen()
  }

  /** Dismisses workers, and goes on answering. */
  dismiss(message: string): void {
    this.#server.dismiss(message)
  }

  /** Dismisses workers and pages; see `Run.close`. */
  close(message: string, retryAfter?: number): Promise<void> {
    this.#leaving = true
    return this.#server.close(message, retryAfter)
  }
}
