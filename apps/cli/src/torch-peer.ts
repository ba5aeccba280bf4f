import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

/**
 * The same step in PyTorch, as a program for its Python. It reads lines
 * `threads batch precision layout seconds device mode` (mode is eager or compiled) and answers each with images/s, so that
 * one process serves all rounds.
 */
const program = `
import sys, time
import torch, torch.nn as nn, torch.nn.functional as F
print(torch.__version__, 'cuda' if torch.cuda.is_available() else 'cpu', flush=True)
def net():
    c = nn.Conv2d
    return nn.Sequential(c(3,96,3,padding=1),nn.ReLU(),c(96,96,3,padding=1),nn.ReLU(),c(96,96,3,2,1),nn.ReLU(),nn.Dropout(.5),
        c(96,192,3,padding=1),nn.ReLU(),c(192,192,3,padding=1),nn.ReLU(),c(192,192,3,2,1),nn.ReLU(),nn.Dropout(.5),
        c(192,192,3,padding=1),nn.ReLU(),c(192,192,1),nn.ReLU(),c(192,10,1),nn.AdaptiveAvgPool2d(1),nn.Flatten())
made = {}
for line in sys.stdin:
    threads, batch, precision, layout, seconds, device, mode = line.split()
    torch.set_num_threads(int(threads))
    key = (batch, precision, layout, device, mode)
    if key not in made:
        model = net()
        x, y = torch.randn(int(batch),3,32,32), torch.randint(0,10,(int(batch),))
        if layout == 'channels_last':
            model = model.to(memory_format=torch.channels_last); x = x.contiguous(memory_format=torch.channels_last)
        model, x, y = model.to(device), x.to(device), y.to(device)
        if mode == 'compiled': model = torch.compile(model)
        made[key] = (model, torch.optim.SGD(model.parameters(), lr=.01, momentum=.9, nesterov=True), x, y)
    model, optimizer, x, y = made[key]
    def step():
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == 'bf16'):
            loss = F.cross_entropy(model(x), y)
        loss.backward(); optimizer.step()
    wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
    for _ in range(3 if device == 'cuda' else 1): step()
    wait(); start, n = time.time(), 0
    while time.time() - start < float(seconds) or n < 2:
        step(); n += 1
        if n % 8 == 0: wait()
    wait()
    print(n * int(batch) / (time.time() - start), flush=True)
`

/** A running peer. */
export interface TorchPeer {
  readonly version: string
  /** Whether it has a GPU. */
  readonly cuda: boolean
  /** Images/s of a line. */
  ask(line: string): Promise<number>
  close(): void
}

/** PyTorch in a process of its own, or undefined where no Python has it. */
export async function startTorch(): Promise<TorchPeer | undefined> {
  for (const python of ['python3', '/usr/bin/python3']) {
    const child = spawn(python, ['-u', '-c', program], { stdio: ['pipe', 'pipe', 'ignore'] })
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    child.on('error', () => {})
    const first = await lines.next()
    if (first.done) continue
    const [version, device] = first.value.split(' ')
    return {
      version: `${version} (${python})`,
      cuda: device === 'cuda',
      async ask(line) {
        child.stdin.write(`${line}\n`)
        return Number((await lines.next()).value)
      },
      close: () => child.kill(),
    }
  }
  return undefined
}
