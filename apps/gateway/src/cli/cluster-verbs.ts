/** Verbs for what only a cluster has: nodes and pools as a whole, and why a user gets what he gets. */
import { StartError } from '@sallyport/chassis';
import type { ExplainUserResponse, NodeEntry, PoolEntry } from '../admin/wire.ts';
import * as form from './occtl-form.ts';
import type { Command, Verbs } from './verbs.ts';

export function addCluster(program: Command, verbs: Verbs): void {
  const show = program.commands.find((command) => command.name() === 'show');
  show
    ?.command('nodes')
    .description('tunnel nodes of the cluster')
    .action(() =>
      verbs.ask(async (client) => {
        const nodes = await client.nodes();
        verbs.print(
          nodes.map((node) => nodeJson(node)),
          nodesText(nodes, verbs.now),
        );
      }),
    );
  show
    ?.command('pools')
    .description('address pools, and how full they are')
    .action(() =>
      verbs.ask(async (client) => {
        const pools = await client.pools();
        verbs.print(pools.map(poolJson), poolsText(pools));
      }),
    );
  for (const [verb, drain, about, done] of [
    ['drain', true, 'no new clients on a node; its tunnels move to the others', 'drains'],
    ['undrain', false, 'take clients on a node again', 'takes clients again'],
  ] as const) {
    program
      .command(verb)
      .description(about)
      .command('node')
      .argument('<name>', 'from show nodes')
      .action((node: string) =>
        verbs.ask(async (client) => {
          const { found } = await client.drain({ node, drain });
          if (!found) throw new StartError(`There is no node ${node}: show nodes lists them.`);
          verbs.print({ node, draining: drain }, `node ${node} ${done}`);
        }),
      );
  }
  program
    .command('explain')
    .description('why something is as it is')
    .command('user')
    .description('why the last login failed, and where each value of the policy comes from')
    .argument('<name>')
    .option('--profile <name>', 'connection profile (else the default one)', '')
    .action((user: string, { profile }: { profile: string }) =>
      verbs.ask(async (client) => {
        const explained = await client.explainUser({ user, profile });
        verbs.print(explainedJson(user, explained), explainedText(user, explained, verbs.now));
      }),
    );
}

function nodeJson(node: NodeEntry): form.JsonObject {
  return {
    Name: node.name,
    Number: node.number,
    State: node.state,
    Address: node.address,
    Version: node.version,
    Tunnels: node.tunnels,
    raw_last_heard: seconds(node.beatAt),
    Incarnation: node.incarnation,
  };
}

function nodesText(nodes: NodeEntry[], now: number): string {
  if (nodes.length === 0) return 'There are no nodes.';
  const ago = (micros: string) =>
    form.duration(Math.max(0, Math.floor(now / 1000 - Number(BigInt(micros) / 1_000_000n))));
  return form.columns(
    ['name', 'state', 'tunnels', 'heard', 'address', 'version'],
    nodes.map((node) => [
      node.name,
      node.state,
      String(node.tunnels),
      ago(node.beatAt),
      node.address,
      node.version,
    ]),
  );
}

function poolJson({ pool, family, size, used }: PoolEntry): form.JsonObject {
  return { Pool: pool, Family: family, Size: size, Used: used, Free: String(BigInt(size) - BigInt(used)) };
}

function poolsText(pools: PoolEntry[]): string {
  if (pools.length === 0) return 'No address of a pool is in use.';
  return form.columns(
    ['pool', 'used', 'size', 'full'],
    pools.map(({ pool, size, used }) => [
      pool,
      String(used),
      size,
      `${Number((BigInt(used) * 1000n) / BigInt(size || '1')) / 10} %`,
    ]),
  );
}

function explainedJson(user: string, explained: ExplainUserResponse) {
  const { policy, failure, succeededAt, counts } = explained;
  return {
    Username: user,
    Known: policy.known,
    Locked: policy.locked,
    Groups: policy.groups,
    Profile: policy.profile,
    Refused: policy.refused,
    'Last failure': failure && {
      raw_at: seconds(failure.at),
      Reason: failure.reason,
      Text: failure.text,
      Profile: failure.profile,
      Method: failure.method,
      'Remote IP': failure.address,
    },
    raw_last_success: seconds(succeededAt),
    Failures: { User: counts.user, 'Remote IP': counts.address, raw_span: counts.spanSeconds },
    Policy: policy.values.map(({ key, value, scope, name }) => ({
      Key: key,
      Value: value,
      From: originText(scope, name),
    })),
  };
}

function explainedText(user: string, explained: ExplainUserResponse, now: number): string {
  const { policy, failure, succeededAt, counts } = explained;
  const { known, locked, groups, profile, refused, values } = policy;
  const ago = (micros: string) =>
    `${form.duration(Math.max(0, Math.floor(now / 1000) - seconds(micros)))} ago`;
  const lines = [
    `User ${user}: ${known ? (locked ? 'locked' : 'may log in') : 'is not known'}`,
    `  groups: ${groups.join(', ') || 'none'}`,
    `  last login: ${succeededAt === '0' ? 'none is remembered' : ago(succeededAt)}`,
    failure
      ? `  last failure: ${ago(failure.at)}, ${failure.reason} (${failure.text}) in profile ${failure.profile || 'none'}, method ${failure.method || 'none'}, from ${failure.address}`
      : '  last failure: none is remembered',
    `  failures within ${form.duration(counts.spanSeconds)}, on all replicas: ${counts.user}` +
      (failure && counts.address > 0 ? `; of anybody from ${failure.address}: ${counts.address}` : ''),
    '',
  ];
  if (refused !== '') return [...lines, `Profile ${profile} refuses him: ${refused}`].join('\n');
  const rows = values.map(({ key, value, scope, name }) => [key, value || 'none', originText(scope, name)]);
  return [...lines, `In profile ${profile} he gets:`, form.columns(['key', 'value', 'from'], rows)].join(
    '\n',
  );
}

function originText(scope: string, name: string): string {
  if (scope === 'default') return 'default';
  return name === '' ? 'top level' : `${scope} ${name}`;
}

function seconds(micros: string): number {
  return Number(BigInt(micros) / 1_000_000n);
}
