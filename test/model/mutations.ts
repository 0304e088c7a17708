/* Scripts with one safety taken out: the checker must notice each, or it proves nothing. */
import { createHash } from 'node:crypto';
import type { Script } from '@sallyport/cluster';

export interface Mutation {
  name: string;
  script: string;
  /** Text of the script, and what stands there instead. */
  from: string;
  to: string;
}

export const MUTATIONS: readonly Mutation[] = [
  {
    name: 'park, checkpoint and end by a node look at no lease',
    script: 'change',
    from: 'if not holdsLease(record, ARGS.lease) then return { HEAD, 0 } end',
    to: '',
  },
  {
    name: 'a claim does not raise the epoch',
    script: 'claim',
    from: "local epoch = math.max(number(record, 'le') + 1, NOW, seen + 1)",
    to: "local epoch = number(record, 'le')",
  },
  {
    name: 'a claim does not tell the former owner',
    script: 'claim',
    from: "if record.st == 'u' then tell(record.ln, record.li, id, number(record, 'le'), 'superseded') end",
    to: '',
  },
  {
    name: 'an unknown token is refused while nodes assert',
    script: 'claim',
    from: "if isAsserting() then stop('WAITING nodes still assert their sessions') end",
    to: '',
  },
  {
    name: 'an unknown session is unknown while nodes assert',
    script: 'find',
    from: "if isAsserting() and not ARGS.sure then stop('WAITING nodes still assert their sessions') end",
    to: '',
  },
  {
    name: 'a new address is given while nodes assert',
    script: 'claim',
    from: "if isAsserting() then stop('WAITING a new address waits until the nodes have asserted theirs') end",
    to: '',
  },
  {
    name: 'an assertion overrides the end of its session',
    script: 'assert',
    from: "if stored and stored.st == 'c' then return 'lost ' .. stored.er end",
    to: '',
  },
  {
    name: 'of two leases the lower one wins an assertion',
    script: 'assert',
    from: 'if left ~= right then return left > right end',
    to: 'if left ~= right then return left < right end',
  },
  {
    name: 'an assertion settles no address',
    script: 'assert',
    from: 'if settle(id, record, plan) then',
    to: 'if false then',
  },
  {
    name: 'a new incarnation parks nothing of the older ones',
    script: 'announce',
    from: "if record then toParked(id, record, 'node-restarted') else redis.call('ZREM', key, member) end",
    to: '',
  },
  {
    name: 'a claim does not hold its address',
    script: 'claim',
    from: "if not record['b' .. family] then hold(id, after, family) end",
    to: '',
  },
  {
    name: 'an end leaves its session alive',
    script: 'change',
    from: "after.st, after.en, after.er, after.n, after.op = 'c',",
    to: "after.st, after.en, after.er, after.n, after.op = 'a',",
  },
  {
    name: 'a session that ended does not tell its node',
    script: 'change',
    from: "if record.st == 'u' and not askedByOwner then",
    to: 'if false then',
  },
  {
    name: 'a restore overrides a tunnel and an end',
    script: 'restore',
    from: "if stored.st == 'c' or stored.st == 'u' then return false end",
    to: '',
  },
];

/** @throws Error if the script does not have that text any more. */
export function mutate({ script: name, from, to }: Mutation): (script: Script) => Script {
  return (script) => {
    if (script.name !== name) return script;
    if (!script.source.includes(from)) throw new Error(`${name}.lua does not say: ${from}`);
    const source = script.source.replace(from, () => to);
    return { ...script, source, sha: createHash('sha1').update(source).digest('hex') };
  };
}
