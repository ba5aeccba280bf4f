export type { Hello, Page, Welcome } from './hall.ts'
export { Budget, dismiss, HANDSHAKE, hangUp } from './limits.ts'
export { CoordinatorServer, isLoopback } from './server.ts'
