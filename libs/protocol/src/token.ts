import { z } from 'zod'

/**
 * A token, which travels in an HTTP header. Spaces and newlines around it are left out: files and secrets end with one.
 */
export const tokenSchema = z
  .string()
  .trim()
  .regex(/^[ -~\xa0-\xff]*$/, {
    error: 'it holds characters that an HTTP header cannot carry, such as a newline; take letters and digits',
  })
