// Runs in a page: computes the gradient of a leaf with the engine on WebGPU, on the browser's own.
import { createWebgpuEngine } from '@convoy/engine-tfjs/webgpu'
import type { DropoutMasks, LabelledImages } from '@convoy/engine'
import { trainedLayout, type ModelSpec } from '@convoy/model'

export interface Leaf {
  readonly model: ModelSpec
  readonly parameters: number[]
  readonly images: number[]
  readonly labels: number[]
  /** Of each dropout layer. */
  readonly masks: number[][]
}

const { gpu, userAgent } = (globalThis as unknown as { navigator: { gpu: GPU; userAgent: string } }).navigator

async function compute({ model, parameters, images, labels, masks }: Leaf) {
  const engine = await createWebgpuEngine({
    open: async () => {
      const adapter = await gpu.requestAdapter()
      if (!adapter) throw new Error('there is no adapter')
      return { adapter, name: 'the browser’s', software: false }
    },
    compiler: userAgent,
    warn: (text) => console.warn(text),
  })
  const compiled = await engine.compile(model, labels.length)
  compiled.load(Float32Array.from(parameters))
  const batch: LabelledImages = {
    count: labels.length,
    images: Float32Array.from(images),
    labels: Int32Array.from(labels),
  }
  const given: DropoutMasks = { values: masks.map((mask) => Uint8Array.from(mask)) }
  const gradient = new Float32Array(trainedLayout(model).size)
  const result = await compiled.gradient(batch, given, gradient)
  engine.dispose()
  return { ...result, gradient: [...gradient] }
}

Object.assign(globalThis, { compute })
