import { createHash, randomBytes } from 'node:crypto';
import type { Reason } from '@sallyport/protocol';
import { statusOf } from '@sallyport/protocol';
import { Checked } from './journal-lines.ts';
import { PUT_BACK_SLICE, puttingBack, startedText } from './putting-back.ts';
import { decodeStored, parseGrant, type GrantText } from './redis-records.ts';
import {
  homeRanges,
  poolSize,
  reservedList,
  storedGrant,
  type HomeRanges,
  type ReservedList,
  type StoredGrant,
} from './redis-plan.ts';
import type { Scripts } from './redis.ts';
import { loadScript, type Script } from './scripts.ts';
import { Mail, MAIL_SCRIPT, POLL_MILLIS, reasonOf } from './sessions-mail.redis.ts';
import type { Lease, Micros, NodeIdentity, Session, SessionClient } from './session.ts';
import type {
  Claimed,
  ClaimRequest,
  NewSession,
  Notice,
  PoolUse,
  Refused,
  SessionCounts,
  SessionLimits,
  Sessions,
  Usage,
} from './sessions.ts';
import { StoreUnavailable } from './sessions.ts';
import { SESSION_ID_BYTES } from './tokens.ts';
import type { Assertions, AssertionVerdict } from './assertions.ts';

export interface RedisSessionsOptions {
  /** Opened before; closed by who opened it. */
  redis: Scripts;
  limits?: SessionLimits;
  /** How often a node's mail is fetched, ms. */
  pollMillis?: number;
  /**
   * Told when sweeps begin to end nobody, because the clocks of the nodes and that of the store contradict each other
   * (CLUSTER.md C13), and when they end sessions again.
   */
  onSweepHalted?: (halted: boolean) => void;
}

/**
 * The session table of a cluster. Each change is one script, which also appends its event to the stream `events`; the
 * rules are those of session-decisions.ts, in Lua. Done or not when it rejects: every call may be repeated; a claim by
 * its connection id gives the same lease.
 */
export class RedisSessions implements Sessions, Assertions {
  readonly #redis: Scripts;
  readonly #pollMillis: number;
  readonly #onSweepHalted: (halted: boolean) => void;
  #sweepHalted = false;
  #limits: SessionLimits = { maxClients: 0, connectsPerMinute: 0 };
  #reserved: ReservedList = { tag: '', members: [] };
  #home: HomeRanges = homeRanges([]);
  readonly #grants = new Map<string, GrantText>();
  readonly #checked = new Checked();
  readonly #mail = new Set<Mail>();
  #closed = false;

  constructor({ redis, limits, pollMillis, onSweepHalted }: RedisSessionsOptions) {
    this.#redis = redis;
    this.#pollMillis = pollMillis ?? POLL_MILLIS;
    this.#onSweepHalted = onSweepHalted ?? (() => undefined);
    if (limits !== undefined) this.configure(limits);
  }

  async create(input: NewSession): Promise<Session> {
    const stored = storedGrant(input.grant, input.origins);
    const strapKeys = input.strapKey === '' ? [] : [input.strapKey];
    const { tokenHash, user, profile, client } = input;
    const reply = await this.#run(
      SESSION_SCRIPTS.create,
      {
        id: sessionIdOf(tokenHash),
        op: newOp(),
        t: tokenHash,
        u: user,
        p: profile,
        g: stored.key,
        grant: stored.grant,
        plan: stored.plan,
        k: strapKeys.join(' '),
        ...clientFields(client),
        event: startedText({ ...input, strapKeys }),
      },
      true,
    );
    const [away, id, text] = reply;
    this.#keep(stored);
    return this.#decode(String(id), String(text), BigInt(String(away)));
  }

  async find(tokenHash: string): Promise<Session | undefined> {
    const session = await this.#find({ id: sessionIdOf(tokenHash), t: tokenHash });
    // A client gives up at the 401 that follows: a primary that was replaced and does not know it must not cause it (C1).
    if (session === undefined || session.state === 'closed') await this.#redis.prove();
    return session;
  }

  get(id: string): Promise<Session | undefined> {
    return isSessionId(id) ? this.#find({ id }) : this.#unknown(undefined);
  }

  /** The record of a session that has a fact in the stream; undefined = it has ended, and its tombstone is gone. */
  ofFact(id: string): Promise<Session | undefined> {
    return isSessionId(id) ? this.#find({ id, sure: true }) : this.#unknown(undefined);
  }

  list(): Promise<Session[]> {
    return this.#list('', PAGE);
  }

  async findByPrefix(idPrefix: string): Promise<Session[]> {
    if (idPrefix !== '' && !/^[0-9a-f]{1,32}$/.test(idPrefix)) return this.#unknown([]);
    if (!isSessionId(idPrefix)) return this.#list(idPrefix, idPrefix === '' ? PAGE : PREFIX_PAGE);
    const session = await this.get(idPrefix);
    return session === undefined || session.state === 'closed' ? [] : [session];
  }

  async counts(): Promise<SessionCounts> {
    const [authed, up, parked] = await this.#run(SESSION_SCRIPTS.counts, {});
    return { authed: Number(authed), up: Number(up), parked: Number(parked) };
  }

  async #list(prefix: string, limit: number): Promise<Session[]> {
    const sessions: Session[] = [];
    for (let from = ''; ;) {
      const [next, ...ids] = await this.#run(SESSION_SCRIPTS.list, { from, limit, prefix });
      for (let at = 0; at < ids.length; at += FETCH_SLICE)
        sessions.push(...(await this.#fetch(ids.slice(at, at + FETCH_SLICE))));
      from = String(next);
      if (from === '') return sessions;
    }
  }

  async #fetch(ids: readonly (string | number)[]): Promise<Session[]> {
    const [away, ...rows] = await this.#run(SESSION_SCRIPTS.fetch, { ids });
    const sessions: Session[] = [];
    for (let i = 0; i < rows.length; i += 2)
      sessions.push(await this.#decode(String(rows[i]), String(rows[i + 1]), BigInt(String(away))));
    return sessions;
  }

  async claim(request: ClaimRequest): Promise<Claimed | Refused> {
    for (let attempt = 0; attempt < CLAIM_ATTEMPTS; attempt++) {
      const reply = await this.#runClaim(request);
      const { reign } = this.#redis;
      const answer = await this.#claimAnswer(request, reply);
      if (!answer.ok || this.#redis.reign === reign) return answer;
      // Redis may have forgotten this lease, and this node may have asserted what it holds without it (C1).
    }
    throw new StoreUnavailable('one reign of Redis follows on the other');
  }

  async #claimAnswer({ node }: ClaimRequest, reply: (string | number)[]): Promise<Claimed | Refused> {
    if (reply[0] !== 'claimed') {
      const reason = reasonOf(reply[1]);
      if (statusOf(reason) === 401) await this.#redis.prove();
      return { ok: false, reason };
    }
    const [, away, id, text, offered, resumed, fresh, told, returning] = reply.map(String);
    if (fresh === '1') await this.#redis.confirm(); // a new address must not be forgotten and given again
    const session = await this.#decode(id ?? '', text ?? '', BigInt(away ?? '0'));
    if (session.lease === undefined) throw new Error('a claimed session has no lease');
    if (told === '1') for (const mail of this.#mail) if (mail.isOf(node)) await mail.fetch();
    const addresses = {
      ipv4: offered?.includes('4') ? session.addresses.ipv4 : '',
      ipv6: offered?.includes('6') ? session.addresses.ipv6 : '',
    };
    const { lease } = session;
    return { ok: true, session, lease, addresses, resumed: resumed === '1', returning: returning === '1' };
  }

  async #runClaim(request: ClaimRequest): Promise<(string | number)[]> {
    const { node, client } = request;
    const { tag, members } = this.#reserved;
    const args = {
      id: sessionIdOf(request.tokenHash),
      t: request.tokenHash,
      node: node.name,
      incarnation: node.incarnation,
      c: request.connectionId,
      w4: request.wantIpv4,
      w6: request.wantIpv6,
      strap: request.strapKey,
      proved: request.strapProved ?? '',
      mtu: String(request.mtuBytes),
      seen: request.seenEpoch,
      maxClients: this.#limits.maxClients,
      perMinute: this.#limits.connectsPerMinute,
      reserved: tag,
      home: this.#home,
      ...clientFields(client),
    };
    const reply = await this.#run(SESSION_SCRIPTS.claim, args);
    if (reply[0] !== 'reserve') return reply;
    await this.#run(SESSION_SCRIPTS.reserve, { tag, members });
    const again = await this.#run(SESSION_SCRIPTS.claim, args);
    if (again[0] === 'reserve') throw new StoreUnavailable('Redis has forgotten the fixed addresses again');
    return again;
  }

  park(id: string, lease: Lease, reason: Reason, usage: Usage): Promise<boolean> {
    return this.#change('park', id, { lease, reason, usage });
  }

  checkpoint(id: string, lease: Lease, usage: Usage): Promise<boolean> {
    return this.#change('stats', id, { lease, usage });
  }

  endByNode(id: string, lease: Lease, reason: Reason, usage: Usage): Promise<boolean> {
    return this.#change('endByNode', id, { lease, reason, usage });
  }

  end(id: string, reason: Reason): Promise<boolean> {
    return isSessionId(id) ? this.#change('end', id, { reason }) : Promise.resolve(false);
  }

  /** A session that changes its state changes its place in the index: of many the walk is made until it finds none. */
  async endOfUser(user: string, reason: Reason, upTo?: Micros): Promise<number> {
    for (let total = 0; ;) {
      const { ended, slices } = await this.#endOfUser({ user, reason, limit: SLICE, upTo: upTo ?? '' });
      total += ended;
      if (ended === 0 || slices === 1) return total;
    }
  }

  async #endOfUser(args: object): Promise<{ ended: number; slices: number }> {
    for (let [ended, slices, from] = [0, 1, '']; ; slices++) {
      const [count, next, forgotten] = await this.#run(SESSION_SCRIPTS.endUser, { ...args, from }, true);
      ended += Number(count);
      from = String(next);
      if (from !== '') continue;
      if (forgotten === 1) throw new StoreUnavailable('nodes still assert their sessions');
      return { ended, slices };
    }
  }

  announce({ name, incarnation }: NodeIdentity): Promise<number> {
    return this.#slices(SESSION_SCRIPTS.announce, { node: name, incarnation, limit: SLICE }, false);
  }

  async leasesOf({ name, incarnation }: NodeIdentity): Promise<string[]> {
    for (const ids: string[] = []; ;) {
      const args = { node: name, incarnation, from: ids.at(-1) ?? '', limit: LEASES_PAGE };
      const page = await this.#run(SESSION_SCRIPTS.leases, args);
      ids.push(...page.map(String));
      if (page.length < LEASES_PAGE) return ids;
    }
  }

  notices(node: NodeIdentity, deliver: (notices: Notice[]) => void): () => void {
    for (const older of this.#mail) if (older.isOf(node)) older.stop();
    const mail = new Mail(node, deliver, (args) => this.#run(MAIL_SCRIPT, args), this.#pollMillis);
    this.#mail.add(mail);
    return () => {
      mail.stop();
      this.#mail.delete(mail);
    };
  }

  async sweep(): Promise<number> {
    let ended = 0;
    for (let slice = 0; slice < SWEEP_SLICES; slice++) {
      const [count, more, stopped] = await this.#run(SESSION_SCRIPTS.sweep, { limit: SLICE });
      if (stopped !== 'asserting') this.#noteHalt(stopped === 'halted');
      ended += Number(count);
      if (more !== 1) break;
    }
    return ended;
  }

  #noteHalt(halted: boolean): void {
    if (halted === this.#sweepHalted) return;
    this.#sweepHalted = halted;
    this.#onSweepHalted(halted);
  }

  async pools(): Promise<PoolUse[]> {
    return (await this.#run(SESSION_SCRIPTS.pools, {})).map((line) => {
      const [pool = '', family, length, used] = String(line).split(' ');
      const size = poolSize(pool, Number(length));
      return { pool, family: family === '4' ? 'ipv4' : 'ipv6', size, used: Number(used) };
    });
  }

  configure(limits: SessionLimits): void {
    this.#limits = limits;
    this.#reserved = reservedList(limits.reserved ?? []);
    this.#home = homeRanges(limits.home ?? []);
  }

  /** Redis itself stays open. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const mail of this.#mail) mail.stop();
    this.#mail.clear();
    await Promise.resolve();
  }

  onNewReign(deliver: (reign: string) => void): () => void {
    return this.#redis.onReign(deliver);
  }

  async assert(node: NodeIdentity, sessions: readonly Session[]): Promise<AssertionVerdict[]> {
    const { reign } = this.#redis;
    const verdicts = await this.#write(sessions);
    await this.#run(SESSION_SCRIPTS.asserted, { node: node.name, reign });
    return verdicts;
  }

  async #write(sessions: readonly Session[]): Promise<AssertionVerdict[]> {
    const verdicts: AssertionVerdict[] = [];
    for (let at = 0; at < sessions.length; at += PUT_BACK_SLICE) {
      const slice = sessions.slice(at, at + PUT_BACK_SLICE);
      const { records, grants } = puttingBack(slice);
      for (const grant of grants) this.#keep(grant);
      const reply = await this.#run(SESSION_SCRIPTS.assert, { records, grants }, true);
      for (const [i, { id }] of slice.entries()) {
        const [kind, reason] = String(reply[i]).split(' ');
        verdicts.push(
          kind === 'kept'
            ? { sessionId: id, kept: true }
            : { sessionId: id, kept: false, reason: reasonOf(reason) },
        );
      }
    }
    return verdicts;
  }

  async #run(script: Script, args: object, confirm = false): Promise<(string | number)[]> {
    if (this.#closed) throw new StoreUnavailable('the session store is closed');
    return this.#redis.run(script, args, { confirm });
  }

  /** For what cannot be in the table: Redis is not asked. */
  async #unknown<T>(answer: T): Promise<T> {
    if (this.#closed) throw new StoreUnavailable('the session store is closed');
    return Promise.resolve(answer);
  }

  async #find(args: { id: string; t?: string; sure?: true }): Promise<Session | undefined> {
    const [away, id, text] = await this.#run(SESSION_SCRIPTS.find, args);
    return id === undefined ? undefined : this.#decode(String(id), String(text), BigInt(String(away)));
  }

  async #change(
    how: 'park' | 'stats' | 'endByNode' | 'end',
    id: string,
    what: { lease?: Lease; reason?: Reason; usage?: Usage },
  ): Promise<boolean> {
    const { lease, reason, usage } = what;
    const [done] = await this.#run(
      SESSION_SCRIPTS.change,
      {
        id,
        how,
        op: newOp(),
        reason,
        lease: lease && { e: String(lease.epoch), c: lease.claimId },
        usage: usage && { rx: usage.rxBytes, tx: usage.txBytes, at: usage.activeAt },
      },
      how === 'end',
    );
    return done === 1;
  }

  async #slices(script: typeof SESSION_SCRIPTS.announce, args: object, confirm: boolean): Promise<number> {
    for (let total = 0; ;) {
      const [count, more] = await this.#run(script, args, confirm);
      total += Number(count);
      if (more !== 1) return total;
    }
  }

  async #decode(id: string, text: string, away: bigint): Promise<Session> {
    const key = GRANT_FIELD.exec(text)?.[1] ?? '';
    const grant = this.#grants.get(key) ?? (await this.#fetchGrant(key));
    return decodeStored(id, text, grant, away, this.#checked);
  }

  async #fetchGrant(key: string): Promise<GrantText> {
    const text = await this.#redis.call('HGET', `${this.#redis.prefix}g:${key}`, 'j');
    // Gone between two answers: its last session was forgotten, or Redis forgot.
    if (typeof text !== 'string') throw new StoreUnavailable('the grant of a session is gone');
    return this.#keep({ key, grant: text });
  }

  #keep({ key, grant }: Pick<StoredGrant, 'key' | 'grant'>): GrantText {
    const known = this.#grants.get(key);
    if (known !== undefined) return known;
    if (this.#grants.size >= GRANTS_LIMIT) this.#grants.clear();
    const parsed = parseGrant(grant);
    this.#grants.set(key, parsed);
    return parsed;
  }
}

const SESSION_PARTS = ['records', 'addresses'];
/** For the model, too, which changes them. */
export const SESSION_SCRIPTS = {
  create: loadScript('create', SESSION_PARTS),
  find: loadScript('find', ['records']),
  list: loadScript('list', ['records']),
  fetch: loadScript('fetch', ['records']),
  counts: loadScript('counts'),
  claim: loadScript('claim', [...SESSION_PARTS, 'yielding']),
  reserve: loadScript('reserve'),
  change: loadScript('change', SESSION_PARTS),
  endUser: loadScript('end-user', SESSION_PARTS),
  announce: loadScript('announce', ['records']),
  leases: loadScript('leases', ['records']),
  sweep: loadScript('sweep', SESSION_PARTS),
  pools: loadScript('pools', SESSION_PARTS),
  assert: loadScript('assert', [...SESSION_PARTS, 'putting-back']),
  asserted: loadScript('asserted'),
};

/** Sessions that one script changes at most: a longer one would hold up everybody else. */
export const SLICE = 20;

/** Sessions of one page of `list`. */
const PAGE = 500;
/** Leases of a node: read from the index alone. */
export const LEASES_PAGE = 1000;
/** Of a search by id, most of which is not wanted. */
const PREFIX_PAGE = 2000;
/** Records that one script reads. */
const FETCH_SLICE = 100;
const SWEEP_SLICES = 500;
/** Reigns that may begin during one claim. */
const CLAIM_ATTEMPTS = 3;
const GRANTS_LIMIT = 1024;
const OP_BYTES = 6;
const GRANT_FIELD = /"g":"([A-Za-z0-9_-]+)"/;

/** Found without an index; the id is no secret, and the token cannot be found from it. */
function sessionIdOf(tokenHash: string): string {
  return createHash('sha256')
    .update(`session ${tokenHash}`)
    .digest('hex')
    .slice(0, 2 * SESSION_ID_BYTES);
}

/** Names one change, so that its repetition is known. */
function newOp(): string {
  return randomBytes(OP_BYTES).toString('base64url');
}

function isSessionId(id: string): boolean {
  return /^[0-9a-f]{32}$/.test(id);
}

function clientFields({ address, userAgent, platform, hostname }: SessionClient) {
  return { ca: address, cu: userAgent, cp: platform, ch: hostname };
}
