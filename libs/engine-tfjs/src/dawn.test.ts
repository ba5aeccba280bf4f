import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { hasVulkanDriver } from './dawn.ts'

it('knows a driver of Vulkan by its manifest, or by the variable that names one', () => {
  const home = mkdtempSync(path.join(tmpdir(), 'convoy-vulkan-'))
  const nowhere = path.join(home, 'nowhere')
  const environment = { HOME: home, XDG_CONFIG_DIRS: nowhere, XDG_DATA_DIRS: `${nowhere}:${home}/share` }
  const folder = path.join(home, 'share/vulkan/icd.d')
  mkdirSync(folder, { recursive: true })
  const before = hasVulkanDriver(environment)
  writeFileSync(path.join(folder, 'some_icd.x86_64.json'), '{}')
  expect(hasVulkanDriver(environment)).toBe(true)
  rmSync(home, { recursive: true })
  // Whatever this machine has in /etc/vulkan counts before and after.
  expect(hasVulkanDriver(environment)).toBe(before)
  expect(hasVulkanDriver({ ...environment, VK_ICD_FILENAMES: '/a.json' })).toBe(true)
})
