/**
 * `npm run cluster`: a cluster on this machine until Ctrl-C. Ready, it prints one line of JSON on stdout: what scripts
 * need to know of it (Cluster.describe). Everything else goes to stderr.
 */
import { parseArgs } from 'node:util';
import { BALANCER_KINDS } from './balancer.ts';
import { Cluster, type ClusterOptions } from './cluster.ts';
import { HAS_SUPERVISOR } from './member.ts';
import { MAX_CLIENTS, MAX_NODES } from './network.ts';

async function main(argv: readonly string[]): Promise<number> {
  const options = optionsOf(argv);
  if (options === undefined) return 0;
  const stopped = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => resolve());
  });
  if (!HAS_SUPERVISOR)
    say('There is no supervisor (no cargo): nodes run by themselves, and their ports close when they die.');
  const opened = Cluster.open({ ...options, say });
  // Ended before it was up: what is there goes with this process.
  const isUp = await Promise.race([opened.then(() => true), stopped.then(() => false)]);
  if (!isUp) return INTERRUPTED;
  const cluster = await opened;
  try {
    say('one login through the balancer');
    await cluster.probe();
    process.stdout.write(`${JSON.stringify(cluster.describe())}\n`);
    say('The cluster is up; Ctrl-C takes it down.');
    await stopped;
    return 0;
  } finally {
    say('taking everything down');
    await cluster.close();
  }
}

function optionsOf(argv: readonly string[]): ClusterOptions | undefined {
  const { values } = parseArgs({ args: [...argv], options: OPTIONS });
  if (values.help === true) {
    process.stderr.write(HELP);
    return undefined;
  }
  const balancer = BALANCER_KINDS.find((kind) => kind === values.balancer);
  if (balancer === undefined) throw new Error(`--balancer is one of ${BALANCER_KINDS.join(', ')}`);
  const returnPath = RETURN_PATHS.find((path) => path === values['return-path']);
  if (returnPath === undefined) throw new Error(`--return-path is one of ${RETURN_PATHS.join(', ')}`);
  const nodes = countOf('--nodes', values.nodes, MAX_NODES);
  return { nodes, clients: countOf('--clients', values.clients, MAX_CLIENTS), balancer, returnPath };
}

function countOf(option: string, text: string, max: number): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= max) return count;
  throw new Error(`${option} is a whole number from 1 to ${max}`);
}

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

const OPTIONS = {
  nodes: { type: 'string', default: '3' },
  clients: { type: 'string', default: '100' },
  balancer: { type: 'string', default: 'redispatch' },
  'return-path': { type: 'string', default: 'routed' },
  help: { type: 'boolean' },
} as const;
const RETURN_PATHS = ['routed', 'nat'] as const;
const INTERRUPTED = 130;
const HELP = `npm run cluster [-- OPTION...]
  --nodes N          tunnel nodes (3)
  --clients N        client namespaces, each with an address (100)
  --balancer KIND    redispatch (default): haproxy goes to another node when one refuses; kube-proxy: nftables alone
  --return-path HOW  routed (default) or nat
`;

main(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error: unknown) => {
    say(`sallyport: ${error instanceof Error ? error.message : String(error)}`);
    process.exit(1);
  },
);
