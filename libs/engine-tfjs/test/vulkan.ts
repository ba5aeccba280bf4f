import { existsSync } from 'node:fs'
import { webgpuAdapters, webgpuIsSetUp } from '../src/dawn.ts'

/** Chromium's software Vulkan, which takes the place of a GPU where there is none. */
const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json'

if (existsSync(SWIFTSHADER)) process.env['VK_ICD_FILENAMES'] ??= SWIFTSHADER

/** What keeps WebGPU from being tested here; undefined where nothing does. */
export const noVulkan: string | undefined = !webgpuIsSetUp()
  ? 'convoy setup webgpu was not run'
  : await webgpuAdapters().then(
      (found) =>
        found.length > 0
          ? undefined
          : 'there is no Vulkan device (libvulkan1, and chromium for its SwiftShader)',
      (error: Error) => error.message,
    )
