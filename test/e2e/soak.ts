/**
 * Tunnel traffic with reconnects while resident memory is watched: `node test/dist/e2e/soak.js --minutes 30`.
 * Prints one line a minute; exit code 0 = nothing was lost and memory is flat.
 */
import { fileURLToPath } from 'node:url';
import { ALICE, BOB, echoRequest, eventually, FRAME, header, sleep, World } from '../harness/index.ts';

export interface SoakReport {
  minutes: number;
  reconnects: number;
  packets: number;
  answers: number;
  /** Resident bytes: at the end of the first quarter, and at the end. */
  early: number;
  late: number;
  /** The real client lived, and kept its address without a new login. */
  clientKept: boolean;
}

export async function soak(minutes: number, report: (line: string) => void = () => {}): Promise<SoakReport> {
  const world = await World.open();
  try {
    const client = await world.connected(ALICE);
    const logins = client.posts;
    const end = Date.now() + minutes * 60_000;
    const state = { packets: 0, answers: 0, churned: 0 };
    const sizes: number[] = [];
    while (Date.now() < end) {
      await Promise.all([pingRound(world, state), churnRound(world, state)]);
      const { connects } = client;
      client.signal('SIGUSR2');
      await client.whenConnects(connects + 1);
      await eventually('a ping', async () => (await world.lab.ping(world.lab.lanIpv4, { count: 1 })) === 1);
      sizes.push(world.gateway.residentBytes());
      report(
        `${state.packets} packets, ${client.connects + state.churned} CONNECTs, ${Math.round((sizes.at(-1) ?? 0) / 2 ** 20)} MiB`,
      );
    }
    const quarter = Math.floor(sizes.length / 4);
    return {
      minutes,
      reconnects: client.connects - 1 + state.churned,
      packets: state.packets,
      answers: state.answers,
      early: median(sizes.slice(quarter, quarter + 5)),
      late: median(sizes.slice(-5)),
      clientKept: client.alive && client.posts === logins,
    };
  } finally {
    await world.close();
  }
}

/** Pings through the real client's tunnel, 50 a second. */
async function pingRound(world: World, state: { packets: number; answers: number }): Promise<void> {
  const argv = ['ping', '-n', '-i', '0.02', '-s', '1000', '-W', '1', '-c', String(PINGS), world.lab.lanIpv4];
  const { stdout } = await world.lab.exec(world.lab.client(), argv, { anyCode: true });
  state.packets += PINGS;
  state.answers += Number(/(\d+) received/.exec(stdout)?.[1] ?? 0);
}

/** A scripted client logs in, sends a burst, drops its connection, comes back, and logs out. */
async function churnRound(world: World, state: { churned: number }): Promise<void> {
  const client = await world.loggedIn(BOB);
  for (let round = 0; round < 5; round++) {
    const { answer, channel, tls } = await client.connect();
    const address = header(answer, 'X-CSTP-Address') ?? '';
    for (let count = 0; count < 200; count++)
      channel.send(FRAME.data, echoRequest(address, world.lab.lanIpv4, count, 1000));
    await sleep(200);
    tls.close();
    state.churned += 1;
  }
  await client.logout();
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

/** What may be lost while the real client changes its tunnel, and what memory may gain. */
export function verdict(report: SoakReport): string[] {
  const problems: string[] = [];
  if (!report.clientKept) problems.push('openconnect ended or logged in again');
  if (report.answers < report.packets * 0.97)
    problems.push(`${report.answers} answers to ${report.packets} packets`);
  if (report.late > report.early * 1.2 + 16 * 2 ** 20)
    problems.push(`memory grew from ${report.early} to ${report.late} bytes`);
  return problems;
}

const PINGS = 100;

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const at = process.argv.indexOf('--minutes');
  const minutes = at < 0 ? 30 : Number(process.argv[at + 1]);
  let lines = 0;
  const report = await soak(minutes, (line) => {
    if (lines++ % 20 === 0) console.log(`${new Date().toISOString().slice(11, 19)}  ${line}`);
  });
  const problems = verdict(report);
  console.log(JSON.stringify(report));
  for (const problem of problems) console.log(problem);
  process.exitCode = problems.length === 0 ? 0 : 1;
}
