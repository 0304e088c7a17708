/*
 * What must hold (docs/decisions/0008-safety.md), looked at after each script, after each step and at the end:
 *
 *  R1  indexes   each live record has its address once, its lease in its node's index and its user's entry; no address twice
 *  R2  lease     within one primary epochs only grow; a claim and an assertion alone change a lease
 *  R3  fence     park, checkpoint and end by a node change nothing unless they carry the present lease
 *  R4  end       what was confirmed as ended does not live again, unless everybody who had confirmed it was lost
 *  R5  cookie    a session that has not ended gets no 401, unless all its copies were lost
 *  R6  forward   a tunnel without the present lease is gone within the bound, counted from when its node runs and is connected
 *  R7  fresh     no address is given anew while a running, connected node forwards it, or while nodes assert
 *  R8  rest      at the end each lease has its tunnel and each tunnel its lease, and every live cookie has a tunnel
 *  R9  facts     at the end every start has one end
 */
import type { Session } from '@sallyport/cluster';
import type { Facts } from './auth.ts';
import type { Client } from './client.ts';
import { fieldsOf, isAbove, type Dump, type StoredRecord } from './dump.ts';
import { ISOLATION_LIMIT, type ModelNode } from './node.ts';
import { SECONDS } from './simulation.ts';
import type { Execution, Primary } from './store.ts';

export class Violation extends Error {
  readonly rule: string;

  constructor(rule: string, what: string) {
    super(`${rule}: ${what}`);
    this.rule = rule;
  }
}

/** What is known of a session from outside. */
export interface Known {
  label: string;
  /** Some primary has said so. */
  ended: boolean;
  /** µs: an end was answered as done; 0 = none. */
  confirmedAt: number;
}

export interface CheckedWorld {
  now: () => number;
  nodes: readonly ModelNode[];
  present: () => Primary;
  /** When this node was last cut off, frozen or with a primary that was thrown away, or the store was in trouble, µs. */
  troubledAt: (node: string) => number;
  /** When the store lost what had been confirmed, µs; 0 = never. */
  lostAllAt: () => number;
}

export class Checker {
  readonly known = new Map<string, Known>();
  readonly #world: CheckedWorld;
  /** Tunnels without the present lease, since when. */
  readonly #stale = new Map<string, number>();
  #violation: Violation | undefined;

  constructor(world: CheckedWorld) {
    this.#world = world;
  }

  get violation(): Violation | undefined {
    return this.#violation;
  }

  label(id: string): string {
    return this.known.get(id)?.label ?? id.slice(0, 6);
  }

  learn(id: string, label: string): void {
    this.known.set(id, { label, ended: false, confirmedAt: 0 });
  }

  /** An end was answered as done. */
  confirmEnd(id: string): void {
    const known = this.known.get(id);
    if (known !== undefined) known.confirmedAt ||= this.#world.now();
  }

  handleExecution(execution: Execution): void {
    const { primary, script, before, after } = execution;
    for (const [id, record] of after.records) {
      const known = this.known.get(id);
      if (known !== undefined && record.state === 'c' && primary === this.#world.present())
        known.ended = true;
      const was = before.records.get(id);
      if (was !== undefined && was.text !== record.text) this.#checkChange(execution, id, was, record);
    }
    this.#checkIndexes(after, `${script} on ${primary.name}`);
    if (script === 'claim') this.#checkFresh(execution);
    if (primary === this.#world.present()) this.#checkEnds(after);
  }

  /** After each step. */
  handleStep(): void {
    const seen = new Set<string>();
    for (const { node, session } of this.#tunnels()) {
      const record = this.#world.present().dump.records.get(session.id);
      if (record?.state === 'u' && record.claimId === session.lease?.claimId) continue;
      const name = `${node.name} ${session.id} ${session.lease?.claimId}`;
      seen.add(name);
      const since = Math.max(this.#stale.get(name) ?? this.#world.now(), this.#world.troubledAt(node.name));
      this.#stale.set(name, since);
      const seconds = (this.#world.now() - since) / SECONDS;
      if (this.#world.now() - since > FORWARD_BOUND)
        this.#fail(
          'R6',
          `${node.name} forwards ${this.label(session.id)} for ${seconds.toFixed(1)} s without its lease (${session.lease?.epoch}; stored: ${record?.state} ${record?.node} ${record?.epoch})`,
        );
    }
    for (const name of this.#stale.keys()) if (!seen.has(name)) this.#stale.delete(name);
  }

  handleRefused(client: Client, reason: string): void {
    const known = this.known.get(client.sessionId);
    const { now, present, lostAllAt } = this.#world;
    const asserting = present().dump.until > now() + present().skew + SECONDS;
    if (known === undefined || known.ended || (lostAllAt() > 0 && !asserting)) return;
    this.#fail(
      'R5',
      `${client.label} gets 401 (${reason})${asserting ? ' while nodes assert' : ''} though its session has not ended`,
    );
  }

  /** No fault is left and everybody had time. */
  handleRest(clients: readonly Client[]): void {
    const { records } = this.#world.present().dump;
    const tunnels = this.#tunnels();
    for (const { node, session } of tunnels) {
      const record = records.get(session.id);
      if (record?.state !== 'u' || record.claimId !== session.lease?.claimId || record.node !== node.name)
        this.#fail('R8', `${node.name} has a tunnel of ${this.label(session.id)} without its lease`);
    }
    for (const [id, record] of records) {
      const holders = tunnels.filter(({ session }) => session.lease?.claimId === record.claimId);
      if (record.state === 'u' && holders.length !== 1)
        this.#fail(
          'R8',
          `${this.label(id)} is up on ${record.node}, which has ${holders.length} tunnels of it`,
        );
    }
    for (const client of clients) {
      const record = records.get(client.sessionId);
      if (client.state !== 'over' && record?.state !== 'u')
        this.#fail('R8', `${client.label} has no tunnel, its session is ${record?.state ?? 'unknown'}`);
    }
  }

  /** All sessions have ended. */
  handleFacts(facts: Facts): void {
    const read = facts.read();
    const starts = new Set(read.filter(({ type }) => type === 'started').map(({ sessionId }) => sessionId));
    for (const id of starts) {
      const ends = read.filter(({ type, sessionId }) => type === 'ended' && sessionId === id).length;
      // Where all copies were lost an end may be lost with them: the table written anew tells it. Or it comes twice.
      if (ends !== 1 && this.#world.lostAllAt() === 0) this.#fail('R9', `${this.label(id)} has ${ends} ends`);
      if (facts.topics.state.has(id))
        this.#fail('R9', `${this.label(id)} goes on in the topic of session state`);
    }
  }

  #checkChange({ primary, script, args }: Execution, id: string, was: StoredRecord, is: StoredRecord): void {
    const who = `${script} on ${primary.name}, ${this.label(id)}`;
    if (was.state === 'c' && is.state !== 'c') this.#fail('R4', `${who}: lives again`);
    if (is.epoch < was.epoch) this.#fail('R2', `${who}: epoch ${was.epoch} to ${is.epoch}`);
    if (was.claimId !== is.claimId) {
      if (script !== 'claim' && script !== 'assert') this.#fail('R2', `${who}: changes the lease`);
      if (!isAbove(is, was)) this.#fail('R2', `${who}: a lease that is not above`);
    }
    if (script === 'announce' && is.state === 'p' && was.incarnation === args['incarnation'])
      this.#fail('R3', `${who}: parks what is its own`);
    if (script !== 'change' || args['how'] === 'end') return;
    const lease = fieldsOf(args['lease']);
    if (lease['e'] !== String(was.epoch) || lease['c'] !== was.claimId)
      this.#fail('R3', `${who}: ${String(args['how'])} with a lease that is not the present one`);
  }

  #checkIndexes({ records, taken, held, users }: Dump, who: string): void {
    const live = [...records].filter(([, { state }]) => state !== 'c');
    const blocks = live.filter(([, { block }]) => block !== '').map(([id, { block }]) => `${block} ${id}`);
    if (new Set(live.map(([, { block }]) => block).filter(Boolean)).size !== blocks.length)
      this.#fail('R1', `${who}: an address twice`);
    if (
      !isSame(
        blocks,
        taken.map((entry) => entry.join(' ')),
      )
    )
      this.#fail('R1', `${who}: addresses and their index differ`);
    const leases = live
      .filter(([, { state }]) => state === 'u')
      .map(([id, { node, incarnation }]) => `${node} ${incarnation} ${id}`);
    if (
      !isSame(
        leases,
        held.map((entry) => entry.join(' ')),
      )
    )
      this.#fail('R1', `${who}: leases and their index differ`);
    if (users !== live.length) this.#fail('R1', `${who}: ${live.length} live sessions, ${users} of users`);
  }

  #checkFresh({ primary, before, after, args, reply }: Execution): void {
    const id = String(args['id']);
    const is = after.records.get(id);
    if (reply?.[0] !== 'claimed' || is === undefined || primary !== this.#world.present()) return;
    if ((before.records.get(id)?.block ?? '') === is.block) return;
    if (after.until > this.#world.now() + primary.skew)
      this.#fail('R7', `${this.label(id)} gets a new address while nodes assert`);
    const text = addressOf(is.block);
    for (const { node, session } of this.#tunnels()) {
      const rival = before.records.get(session.id);
      const isLost = rival === undefined || rival.state === 'c';
      const isLate = this.#world.now() - this.#world.troubledAt(node.name) < FORWARD_BOUND;
      if (session.id !== id && session.addresses.ipv4 === text && !isLost && !isLate)
        this.#fail(
          'R7',
          `${this.label(id)} gets ${text}, which ${node.name} forwards for ${this.label(session.id)}`,
        );
    }
  }

  #checkEnds({ records }: Dump): void {
    for (const [id, { confirmedAt }] of this.known) {
      const record = records.get(id);
      if (confirmedAt === 0 || record === undefined || record.state === 'c') continue;
      if (this.#world.lostAllAt() < confirmedAt)
        this.#fail('R4', `${this.label(id)} lives again after its end was confirmed`);
    }
  }

  #tunnels(): { node: ModelNode; session: Session }[] {
    return this.#world.nodes
      .filter((node) => node.runs)
      .flatMap((node) => (node.process?.holdings() ?? []).map((session) => ({ node, session })));
  }

  #fail(rule: string, what: string): void {
    this.#violation ??= new Violation(rule, what);
  }
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && [...a].sort().join() === [...b].sort().join();
}

function addressOf(entry: string): string {
  return [0, 2, 4, 6].map((at) => Number.parseInt(entry.slice(at, at + 2), 16)).join('.');
}

/** The node finds out in 4 s + 3 s (isolation.ts), and a heartbeat and a call of 3 s may be under way. */
export const FORWARD_BOUND = ISOLATION_LIMIT + 12 * SECONDS;
