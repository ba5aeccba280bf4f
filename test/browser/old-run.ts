import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'

/**
 * Writes the metrics of a run that somebody trained before.
 *
 * @param more What else its start says.
 */
export function oldRun(folder: string, name: string, steps: number, more: object = {}): void {
  const start = {
    ...{ event: 'start', run: name, model: 'all-cnn-c', parameters: 1_369_738, data: 'cifar10', origin: '' },
    ...{ trainImages: 50_000, testImages: 10_000, epochs: steps / 100, stepsPerEpoch: 100, batchSize: 500 },
    ...{ seed: 1, resumedAt: 0, ...more },
  }
  const verdicts = new Map([
    [3, { verdict: 'falling', reason: 'The cost of 5,000 samples fell by 4 % in the last 20 windows.' }],
    [Math.ceil(0.9 * start.epochs), { verdict: 'converged', reason: 'The cost is flat since 60 windows.' }],
  ])
  const lines: object[] = [start]
  for (let step = 1; step <= steps; step++) {
    const loss = 0.3 + 2 * Math.exp((-4 * step) / steps) + 0.1 * Math.sin(step * 12.9898)
    lines.push({
      ...{ event: 'step', step, epoch: Math.floor((step - 1) / 100), loss, accuracy: 1 - loss / 2.6 },
      ...{ cost1000: loss, cost5000: 2.3 * Math.exp((-4 * step) / steps) + 0.3, learningRate: 0.01 },
      ...{ gradientNorm: 1 + Math.sin(step), samples: 500, seconds: 0.5 + 0.1 * Math.sin(step * 7.7) },
      ...{ computeSeconds: 0.41, updateSeconds: 0.012, workers: 4 },
    })
    if (step % 100 > 0) continue
    const epoch = step / 100
    lines.push({
      event: 'test',
      epoch,
      step,
      testLoss: 1,
      testAccuracy: 0.9 - 0.8 * 0.9 ** epoch,
      seconds: 1,
    })
    const verdict = verdicts.get(epoch)
    if (verdict) lines.push({ event: 'verdict', step, epoch, ...verdict })
  }
  mkdirSync(path.join(folder, name), { recursive: true })
  const text = lines
    .map((line, i) => JSON.stringify({ time: 1_700_000_000_000 + 500 * i, ...line }))
    .join('\n')
  writeFileSync(path.join(folder, name, 'metrics.jsonl'), `${text}\n`)
}
