export type { Hello, Page, Welcome } from './hall.ts'
export { Budget, dismiss, HANDSHAKE, hangUp, noWebSocket } from './limits.ts'
export { CoordinatorServer } from './server.ts'
