export async function benchEngine(..._args: unknown[]): Promise<number> {
  return 0
}
