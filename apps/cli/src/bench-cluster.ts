export async function benchCluster(..._args: unknown[]): Promise<number> {
  return 0
}
