import { Catch, Controller, Inject, UseFilters, type RpcExceptionFilter } from '@nestjs/common';
import { GrpcMethod, RpcException } from '@nestjs/microservices';
import { Observable, throwError } from 'rxjs';
import type { Log } from '@sallyport/chassis';
import {
  accountOrder,
  FAILURE_SPAN_SECONDS,
  ServiceUnavailable,
  StoreUnavailable,
  type Accounts,
  type EventLog,
  type ExplainPolicy,
  type Fact,
  type LoginFailures,
  type Nodes,
  type NodeService,
  type Occurrence,
  type Session,
  type Sessions,
  type TunnelInfo,
} from '@sallyport/cluster';
import { reasonText } from '@sallyport/protocol';
import type { Lifecycle } from './ports.ts';
import type { Tally } from './tally.ts';
import { eventMessage, nodeMessage, PAGE_SIZE, sessionMessage, tunnelMessage } from './wire.ts';
import type * as wire from './wire.ts';

/** What the admin service stands on. */
export interface AdminParts {
  sessions: Pick<Sessions, 'list' | 'findByPrefix' | 'get' | 'end' | 'endOfUser' | 'pools'>;
  /** Of the whole cluster. */
  node: NodeService;
  nodes: Nodes;
  events: EventLog;
  /** The last failed and the last good login of a user, of the whole cluster; absent = those of `events`. */
  lastLogins?: ((user: string) => Promise<Occurrence[]>) | undefined;
  /** They tell of their changes themselves. */
  accounts: Accounts & { explain: ExplainPolicy };
  /** Of the whole cluster. */
  failures: Pick<LoginFailures, 'read'>;
  lifecycle: Lifecycle;
  tally: Tally;
  /** What an operator should know of this process's state. */
  notes?: (() => string[]) | undefined;
  log: Log;
  /** µs since 1970, from the store's clock. */
  now: () => bigint;
}

export const ADMIN_PARTS = Symbol('AdminParts');

/** What cannot be reached is the operator's to mend, so its sentence goes to him; other faults are for the log alone. */
@Catch(ServiceUnavailable, StoreUnavailable)
class UnavailableFilter implements RpcExceptionFilter<Error> {
  catch(fault: Error): Observable<never> {
    return throwError(() => ({ code: FAILED_PRECONDITION, message: fault.message }));
  }
}

/** proto/admin.proto, for whoever can open the socket. Every change is a fact in the event log. */
@Controller()
@UseFilters(UnavailableFilter)
export class AdminController {
  readonly #parts: AdminParts;

  constructor(@Inject(ADMIN_PARTS) parts: AdminParts) {
    this.#parts = parts;
  }

  @GrpcMethod('AdminService', 'Status')
  async status(): Promise<wire.StatusResponse> {
    const { lifecycle, node, tally } = this.#parts;
    const { state, version, revision, startedAt, node: name } = lifecycle.status();
    const tunnels = await node.tunnels();
    const live = await this.#liveBytes(tunnels);
    const mtus = tunnels.map((tunnel) => tunnel.mtuBytes);
    return {
      state,
      version,
      pid: process.pid,
      startedAt: String(startedAt),
      node: name,
      revision,
      activeSessions: mtus.length,
      totalSessions: String(tally.totalSessions),
      sessionsHandled: String(tally.sessionsHandled),
      authenticationFailures: String(tally.authenticationFailures),
      timedOutSessions: String(tally.timedOutSessions),
      timedOutIdleSessions: String(tally.timedOutIdleSessions),
      closedErrorSessions: String(tally.closedErrorSessions),
      averageSessionSeconds: String(tally.averageSessionSeconds),
      maxSessionSeconds: String(tally.maxSessionSeconds),
      rxBytes: String(tally.rxBytes + live.rx),
      txBytes: String(tally.txBytes + live.tx),
      // Not Math.min(...mtus): ten thousand arguments are many.
      minMtuBytes: mtus.reduce((least, mtu) => (least === 0 ? mtu : Math.min(least, mtu)), 0),
      maxMtuBytes: mtus.reduce((most, mtu) => Math.max(most, mtu), 0),
      notes: this.#parts.notes?.() ?? [],
    };
  }

  @GrpcMethod('AdminService', 'ListTunnels')
  listTunnels({ user, tunnelId, node }: wire.ListTunnelsRequest): Observable<wire.ListTunnelsResponse> {
    const asked = async () =>
      (await this.#parts.node.tunnels())
        .filter(
          (tunnel) =>
            (user === '' || tunnel.user === user) &&
            (tunnelId === 0 || tunnel.tunnelId === tunnelId) &&
            (node === '' || tunnel.node === node),
        )
        .map(tunnelMessage);
    return pages(asked, (tunnels) => ({ tunnels }));
  }

  @GrpcMethod('AdminService', 'ListSessions')
  listSessions({ sessionId }: wire.ListSessionsRequest): Observable<wire.ListSessionsResponse> {
    const asked = async () => (await this.#sessionsNamed(sessionId)).map(sessionMessage);
    return pages(asked, (sessions) => ({ sessions }));
  }

  @GrpcMethod('AdminService', 'Events')
  events({ last, follow }: wire.EventsRequest): Observable<wire.AdminEvent> {
    const { events } = this.#parts;
    return new Observable((subscriber) => {
      // One after the other, so that looking up a session does not change the order.
      let tail = Promise.resolve();
      const pass = (fact: Fact) => {
        tail = tail.then(async () => {
          if (!subscriber.closed) subscriber.next(await this.#described(fact));
        });
      };
      events.recent(last).forEach(pass);
      if (!follow) void tail.then(() => subscriber.complete());
      return follow ? events.follow(pass) : undefined;
    });
  }

  @GrpcMethod('AdminService', 'Disconnect')
  async disconnect(target: wire.Target): Promise<wire.TargetResponse> {
    const tunnels = await this.#tunnelsOf(target);
    const ids = tunnels.map((tunnel) => tunnel.sessionId);
    const count = ids.length === 0 ? 0 : await this.#parts.node.disconnect(ids, 'server-disconnect');
    this.#changed('disconnect', subjectOf(target, tunnels), count);
    return { count };
  }

  @GrpcMethod('AdminService', 'Terminate')
  async terminate(target: wire.Target): Promise<wire.TargetResponse> {
    const { sessions } = this.#parts;
    let count = 0;
    let meant: { id: string; user: string }[] = [];
    if (target.target === 'user') count = await sessions.endOfUser(target.user ?? '', 'terminated');
    else {
      meant =
        target.target === 'sessionId'
          ? await this.#sessionsNamed(target.sessionId ?? '', true)
          : (await this.#tunnelsOf(target)).map(({ sessionId: id, user }) => ({ id, user }));
      for (const { id } of meant) if (await sessions.end(id, 'terminated')) count++;
    }
    this.#changed('terminate', subjectOf(target, meant), count);
    return { count };
  }

  @GrpcMethod('AdminService', 'Reload')
  async reload(): Promise<wire.ReloadResponse> {
    return this.#parts.lifecycle.reload();
  }

  @GrpcMethod('AdminService', 'Stop')
  stop(): object {
    this.#changed('stop', 'gateway', 1);
    // The answer goes out first.
    setImmediate(() => this.#parts.lifecycle.stop());
    return {};
  }

  @GrpcMethod('AdminService', 'ListAccounts')
  async listAccounts(): Promise<wire.ListAccountsResponse> {
    const accounts = await this.#parts.accounts.list();
    return { accounts: accounts.map(({ name, groups, locked }) => ({ name, groups: [...groups], locked })) };
  }

  @GrpcMethod('AdminService', 'ChangeAccount')
  async changeAccount(request: wire.ChangeAccountRequest): Promise<wire.ChangeAccountResponse> {
    const order = accountOrder(request);
    if (!order) return { problem: 'the verb is none of add, passwd, lock, unlock, delete' };
    try {
      await this.#parts.accounts.apply(order);
    } catch (error) {
      return { problem: error instanceof Error ? error.message : String(error) };
    }
    this.#parts.log.info({ verb: `user-${order.verb}` }, 'changed by an administrator');
    return { problem: '' };
  }

  @GrpcMethod('AdminService', 'ListNodes')
  async listNodes(): Promise<wire.ListNodesResponse> {
    // One that beats and does not answer us is silent, too.
    const silent = this.#parts.node.silent ?? new Set();
    const nodes = await this.#parts.nodes.list();
    return {
      nodes: nodes.map((node) => nodeMessage({ ...node, alive: node.alive && !silent.has(node.name) })),
    };
  }

  @GrpcMethod('AdminService', 'Drain')
  async drain({ node, drain }: wire.DrainRequest): Promise<wire.DrainResponse> {
    const found = await this.#parts.nodes.drain(node, drain);
    this.#changed(drain ? 'drain' : 'undrain', `node ${node}`, found ? 1 : 0);
    return { found };
  }

  @GrpcMethod('AdminService', 'ListPools')
  async listPools(): Promise<wire.ListPoolsResponse> {
    const pools = await this.#parts.sessions.pools();
    return { pools: pools.map(({ size, ...pool }) => ({ ...pool, size: String(size) })) };
  }

  @GrpcMethod('AdminService', 'ExplainUser')
  async explainUser({ user, profile }: wire.ExplainUserRequest): Promise<wire.ExplainUserResponse> {
    const { accounts, events, failures, lastLogins } = this.#parts;
    const policy = await accounts.explain(user, profile);
    const facts = lastLogins ? await lastLogins(user) : events.recent(FACTS_SEARCHED).reverse();
    const failed = facts.find((fact) => fact.type === 'auth.failed' && fact.user === user);
    const succeeded = facts.find((fact) => fact.type === 'auth.succeeded' && fact.user === user);
    const failure =
      failed?.type === 'auth.failed'
        ? { ...failed, at: String(failed.at), text: reasonText(failed.reason) }
        : null;
    const counts = await failures.read(user, failure?.address ?? '');
    return {
      ...{ policy, failure, succeededAt: String(succeeded?.at ?? 0) },
      counts: { spanSeconds: FAILURE_SPAN_SECONDS, ...counts },
    };
  }

  /** Of sessions that have not ended: what the table has of them, and what their tunnels have counted since. */
  async #liveBytes(tunnels: readonly TunnelInfo[]): Promise<{ rx: bigint; tx: bigint }> {
    const bySession = new Map(tunnels.map((tunnel) => [tunnel.sessionId, tunnel]));
    let [rx, tx] = [0n, 0n];
    const sessions = await this.#parts.sessions.list().catch((error: unknown) => {
      // The status of a node that is cut off is what one wants to see; what parked sessions carried is missing then.
      if (error instanceof StoreUnavailable) return undefined;
      throw error;
    });
    if (!sessions)
      for (const tunnel of tunnels) [rx, tx] = [rx + BigInt(tunnel.rxBytes), tx + BigInt(tunnel.txBytes)];
    for (const session of sessions ?? []) {
      const tunnel = bySession.get(session.id);
      rx += session.rxBytes + since(session.tunnelRxBytes, tunnel?.rxBytes);
      tx += session.txBytes + since(session.tunnelTxBytes, tunnel?.txBytes);
    }
    return { rx, tx };
  }

  async #described(fact: Fact): Promise<wire.AdminEvent> {
    if (!('sessionId' in fact) || 'user' in fact) return eventMessage(fact);
    const session = await this.#parts.sessions.get(fact.sessionId).catch(() => undefined);
    return eventMessage(fact, session);
  }

  /** By id or its beginning; '' = all. @param one several that begin so are none: ending the wrong one cannot be undone. */
  async #sessionsNamed(id: string, one = false): Promise<Session[]> {
    const exact = id === '' ? undefined : await this.#parts.sessions.get(id);
    if (exact && exact.state !== 'closed') return [exact];
    if (one && id.length < SHORT_ID_LENGTH) return [];
    const found = await this.#parts.sessions.findByPrefix(id);
    return one && found.length > 1 ? [] : found;
  }

  async #tunnelsOf(target: wire.Target): Promise<TunnelInfo[]> {
    const tunnels = await this.#parts.node.tunnels();
    if (target.target === 'user') return tunnels.filter((tunnel) => tunnel.user === target.user);
    if (target.target === 'tunnelId') {
      const { tunnelId, node = '' } = target;
      const found = tunnels.filter(
        (tunnel) => tunnel.tunnelId === tunnelId && (node === '' || tunnel.node === node),
      );
      // Numbers are unique on one node only, and ending the wrong one cannot be undone.
      if (found.length > 1)
        throw new RpcException({
          code: FAILED_PRECONDITION,
          message: `${found.map((tunnel) => `${tunnel.node}/${tunnelId}`).join(' and ')} have this id, say which`,
        });
      return found;
    }
    const ids = new Set(
      (await this.#sessionsNamed(target.sessionId ?? '', true)).map((session) => session.id),
    );
    return tunnels.filter((tunnel) => ids.has(tunnel.sessionId));
  }

  #changed(verb: string, subject: string, count: number): void {
    if (count === 0) return;
    this.#parts.events.append([{ v: 1, at: this.#parts.now(), type: 'admin.changed', verb, subject }]);
    this.#parts.log.info({ verb, count }, 'changed by an administrator');
  }
}

function since(told: bigint, counted: number | undefined): bigint {
  return counted === undefined || BigInt(counted) < told ? 0n : BigInt(counted) - told;
}

function pages<T, P>(list: () => Promise<T[]>, page: (items: T[]) => P): Observable<P> {
  return new Observable((subscriber) => {
    const send = async () => {
      const items = await list();
      for (let start = 0; start < items.length && !subscriber.closed; start += PAGE_SIZE) {
        subscriber.next(page(items.slice(start, start + PAGE_SIZE)));
      }
      subscriber.complete();
    };
    send().catch((error: unknown) => subscriber.error(error));
  });
}

/** An audit wants the user, however the administrator named him. */
function subjectOf(target: wire.Target, meant: readonly { user: string }[]): string {
  if (target.target === 'user') return `user ${target.user ?? ''}`;
  const users = [...new Set(meant.map(({ user }) => user))].join(', ');
  if (target.target === 'tunnelId')
    return `id ${target.node ? `${target.node}/` : ''}${target.tunnelId ?? 0} of user ${users}`;
  return `session ${target.sessionId ?? ''} of user ${users}`;
}

/** gRPC status code. Not UNAVAILABLE, which says that the asked process itself is away. */
const FAILED_PRECONDITION = 9;
/** Of the last facts, in which a login of one user is looked for. */
const FACTS_SEARCHED = 10_000;
/** What `show sessions` prints of an id. */
export const SHORT_ID_LENGTH = 6;
