import { homedir } from 'node:os'
import path from 'node:path'

/** Where Convoy keeps what it fetched and converted: `CONVOY_CACHE`, or the user's cache folder. */
export function cacheDirectory(environment: NodeJS.ProcessEnv): string {
  const base = environment['XDG_CACHE_HOME'] || path.join(homedir(), '.cache')
  return environment['CONVOY_CACHE'] || path.join(base, 'convoy')
}
