import { ConvoyError } from '@convoy/errors'
import type sharp from 'sharp'

/** The library that decodes images. Throws E_SETUP where its binary for this system is not installed. */
export async function loadSharp(): Promise<typeof sharp> {
  try {
    return (await import('sharp')).default
  } catch (error) {
    // Packages that were installed on another system, or without optional ones, have none.
    const [why] = (error as Error).message.trim().split('\n')
    throw new ConvoyError(
      'E_SETUP',
      `sharp, which decodes images, cannot be loaded on ${process.platform} ${process.arch}: ${why}`,
      'Install the packages again on this system: npm ci --include=optional',
      { cause: error },
    )
  }
}
