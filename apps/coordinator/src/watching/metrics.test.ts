import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { type Cluster, Tally } from '../cluster/index.ts'
import type { RunEvent } from '../events.ts'
import { Metrics } from './metrics.ts'

const tallies = new Map([['a', Object.assign(new Tally(), { samples: 96, waitedFor: 1.5 })]])
const cluster = { size: 2, wasted: 32, traffic: { sent: 100, received: 50 }, tallies } as unknown as Cluster

describe('Metrics', () => {
  it('counts what it hears, and reads the rest when it is read', async () => {
    const metrics = new Metrics({ cluster, workersWanted: () => 3 })
    // What is not known is not 0.
    expect(await metrics.text()).not.toMatch(/^convoy_(step|loss|test_accuracy) /m)
    const step = {
      epoch: 0,
      cost1000: 2.4,
      cost5000: 2.3,
      accuracy: 0.5,
      learningRate: 0.01,
      gradientNorm: 1,
      samples: 128,
      workers: 2,
    }
    metrics.hear({
      ...{ event: 'step', step: 1, loss: 2.5, ...step },
      ...{ seconds: 0.5, computeSeconds: 0.25, updateSeconds: 0.125 },
    })
    metrics.hear({
      ...{ event: 'step', step: 2, loss: 2.25, ...step },
      ...{ seconds: 0.25, computeSeconds: 0.125, updateSeconds: 0.0625 },
    })
    expect(await metrics.text()).not.toMatch(/^convoy_image_size /m)
    metrics.hear({ event: 'test', step: 2, epoch: 1, testLoss: 2.125, testAccuracy: 0.25, seconds: 1 })
    const verdict = { step: 2, epoch: 0, reason: '', cost1000: 2.4, cost5000: 2.3 }
    metrics.hear({ event: 'verdict', verdict: 'noisy', ...verdict })
    metrics.hear({ event: 'verdict', verdict: 'falling', ...verdict })
    metrics.hear({ event: 'refused', worker: 'a', code: 'E_GRADIENT', message: '' })
    const lines = (await metrics.text()).split('\n')
    for (const line of [
      'convoy_step 2',
      'convoy_loss 2.25',
      'convoy_cost{samples="1000"} 2.4',
      'convoy_cost{samples="5000"} 2.3',
      'convoy_verdict{verdict="falling"} 1',
      'convoy_images_per_second 512',
      'convoy_samples_total 256',
      'convoy_step_seconds_total 0.75',
      'convoy_step_phase_seconds_total{phase="compute"} 0.375',
      'convoy_step_phase_seconds_total{phase="update"} 0.1875',
      'convoy_step_phase_seconds_total{phase="wire"} 0.1875',
      'convoy_test_loss 2.125',
      'convoy_workers 2',
      'convoy_workers_wanted 3',
      'convoy_refused_total{code="E_GRADIENT"} 1',
      'convoy_wire_bytes_total{direction="sent"} 100',
      'convoy_wasted_samples_total 32',
      'convoy_worker_samples_total{worker="a"} 96',
      'convoy_worker_waited_seconds_total{worker="a"} 1.5',
      'convoy_checkpoints_failed_total 0',
    ])
      expect(lines).toContain(line)
    expect(lines.join()).not.toContain('noisy')
    metrics.refused('E_TOKEN')
    for (let i = 0; i < 5_000; i++) {
      metrics.hear({ event: 'workerStalled', worker: `w${i}`, waited: 1, step: 1 })
    }
    const after = (await metrics.text()).split('\n')
    expect(after).toContain('convoy_refused_total{code="E_TOKEN"} 1')
    // Names that peers make up do not make figures without end.
    const stalls = after.filter((line) => line.startsWith('convoy_stalls_total{'))
    expect(stalls.length).toBeLessThan(2_000)
    expect(stalls.reduce((sum, line) => sum + Number(line.split(' ')[1]), 0)).toBe(5_000)
    // Read again, nothing is counted twice.
    expect((await metrics.text()).split('\n')).toContain('convoy_wasted_samples_total 32')
  })

  it('tells the size of the images, the full one too, where a run has several', async () => {
    const metrics = new Metrics({ cluster, workersWanted: () => 3 })
    const sizes = [
      { from: 0, size: 16 },
      { from: 1, size: 32 },
    ]
    const step = {
      ...{ event: 'step', loss: 1, cost1000: 1, cost5000: 1, accuracy: 0, learningRate: 1, gradientNorm: 1 },
      ...{ samples: 1, seconds: 1, computeSeconds: 1, updateSeconds: 0 },
    }
    const line = async (event: object) => {
      metrics.hear({ ...step, ...event } as RunEvent)
      return (await metrics.text()).split('\n').find((one) => one.startsWith('convoy_image_size'))
    }
    expect(await line({ event: 'start', resumedAt: 0, stepsPerEpoch: 1, sizes })).toBeUndefined()
    expect(await line({ step: 1, size: 16 })).toBe('convoy_image_size 16')
    expect(await line({ step: 2 })).toBe('convoy_image_size 32')
  })

  it('tells autoscalers no number until it has one, and never NaN', async () => {
    let wanted: number | undefined
    const metrics = new Metrics({ cluster, workersWanted: () => wanted })
    const line = async () =>
      (await metrics.text()).split('\n').find((one) => one.startsWith('convoy_workers_wanted'))
    expect(await line()).toBeUndefined()
    wanted = NaN
    expect(await line()).toBeUndefined()
    wanted = 3
    expect(await line()).toBe('convoy_workers_wanted 3')
    wanted = undefined
    expect(await line()).toBe('convoy_workers_wanted 3')
  })

  it.each([
    'overlays/monitoring/dashboard.json',
    'overlays/autoscale/scaled-object.yaml',
    'overlays/autoscale-hpa/autoscaler.yaml',
  ])('has every figure that k8s/%s asks for', async (file) => {
    const text = await new Metrics({ cluster, workersWanted: () => 3 }).text()
    const known = [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name)
    const asked = readFileSync(new URL(`../../../../k8s/${file}`, import.meta.url), 'utf8').match(
      /\bconvoy_\w+/g,
    )
    expect(asked?.length).toBeGreaterThan(0)
    expect(known).toEqual(expect.arrayContaining(asked!))
  })
})
