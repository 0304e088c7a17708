/**
 * All tunnels of this node. A CONNECT that was let in (connect.ts, steps 1 to 5) goes on with:
 *
 *  6. attach    packets for the addresses come here; an older tunnel of the session is closed first, without a packet
 *  7. answer    200 with the headers, in one record
 *  8. channel   the next byte is CSTP, those that came early included
 *
 * What is refused gets 401 (log in again) or 503 with X-Reason (come back later).
 */
import type { Log } from '@sallyport/chassis';
import {
  StoreUnavailable,
  systemClock,
  type Clock,
  type EventLog,
  type Micros,
  type NodeIdentity,
  type NodeService,
  type Release,
  type Notice,
  type Claimed,
  type Session,
  type Sessions,
  type TunnelInfo,
} from '@sallyport/cluster';
import type { Engine, ReturnPath } from '@sallyport/engine';
import {
  connectAnswer,
  ProtocolError,
  reasonText,
  statusOf,
  type ChannelClose,
  type Reason,
} from '@sallyport/protocol';
import { closingAnswer } from './answers.ts';
import { admit, remainingSeconds, type Admitted } from './connect.ts';
import type { ConnectHandler, ConnectHead } from './edge.ts';
import type { ClientStream } from './listener.ts';
import { EndedSessions } from './ended-sessions.ts';
import { LeaseCheck } from './lease-check.ts';
import { LostLeases } from './lost-leases.ts';
import type { NodeMetrics, TunnelDrop } from './metrics.ts';
import type { StrapMode } from './strap.ts';
import { Tunnel, type Traffic, type TunnelOwner } from './tunnel.ts';

export interface TunnelsOptions {
  node: NodeIdentity;
  /** Name of the gateway in the answer, without software or version. */
  gatewayName: string;
  sessions: Sessions;
  engine: Engine;
  /** Told of the addresses of all tunnels. */
  returnPath: ReturnPath;
  strap: StrapMode;
  /** CONNECTs that may wait for the store at once. */
  connectsAtOnce?: number;
  /** How often usage and last activity are written to the store. */
  checkpointSeconds?: number;
  /** Told of each session that this node took from the tunnel of a process, which may be this one. Must not throw. */
  onTaken?: (from: NodeIdentity, release: Release) => void;
  /** Refusals of sessions go there; claims and ends are the store's to tell. */
  events?: Pick<EventLog, 'append'>;
  metrics: NodeMetrics;
  log: Log;
  /** Monotonic, ms. Default: the machine's. */
  now?: () => number;
  /** For times that others read. Default: the machine's. */
  clock?: Clock;
}

export class Tunnels implements ConnectHandler, NodeService, TunnelOwner {
  readonly engine: Engine;
  /** Why no CONNECT is served for now. */
  refusing: Reason | undefined;
  #announcing = true;
  readonly traffic: Traffic = { rxPackets: 0, rxBytes: 0, txPackets: 0, txBytes: 0 };
  readonly #options: TunnelsOptions;
  readonly #sessions: Sessions;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #byId = new Map<number, Tunnel>();
  readonly #bySession = new Map<string, Tunnel>();
  /** Connections that were told to end and when (monotonic ms): those that do not are cut off. */
  readonly #leaving = new Map<ClientStream, number>();
  readonly #lost = new LostLeases();
  readonly #ended = new EndedSessions();
  /** What the store could not be told yet. */
  readonly #owed: (() => Promise<boolean>)[] = [];
  readonly #leaseCheck: LeaseCheck;
  readonly #ticker: NodeJS.Timeout;
  readonly #stopNotices: () => void;
  #lastId = 0;
  #opening = 0;
  #ticks = 0;
  #seenEpoch: Micros = 0n;
  #closing = false;

  constructor(options: TunnelsOptions) {
    this.#options = options;
    this.#sessions = options.sessions;
    this.#log = options.log;
    this.#clock = options.clock ?? systemClock();
    this.engine = options.engine;
    this.#leaseCheck = new LeaseCheck({
      ...{ node: options.node, sessions: options.sessions, held: this.#bySession, log: options.log },
      ...{ lose: (notices) => this.lose(notices), now: this.now() },
    });
    this.#stopNotices = this.#sessions.notices(options.node, (notices) => this.lose(notices));
    this.#ticker = setInterval(() => this.handleTick(), TICK_MS);
    this.#ticker.unref();
  }

  /** Id of the newest tunnel. */
  get lastId(): number {
    return this.#lastId;
  }

  get size(): number {
    return this.#byId.size;
  }

  /** False: no address of a tunnel is announced, those of the present ones are withdrawn. */
  set announcing(wanted: boolean) {
    if (wanted === this.#announcing) return;
    this.#announcing = wanted;
    for (const tunnel of this.#byId.values()) {
      if (wanted) this.#options.returnPath.announce(tunnel.id, ownedBy(tunnel));
      else this.#options.returnPath.withdraw(tunnel.id);
    }
  }

  set strap(mode: StrapMode) {
    this.#options.strap = mode;
  }

  async open(stream: ClientStream, head: ConnectHead): Promise<void> {
    const begun = this.now();
    this.#opening += 1;
    let result: string;
    try {
      result = await this.#open(stream, head);
    } catch (error) {
      result = this.#handleFault(stream, error);
    }
    this.#opening -= 1;
    this.#options.metrics.connected(result, (this.now() - begun) / 1000);
  }

  /** @returns label for the metric: `ok`, `resumed` or the reason of the refusal. */
  async #open(stream: ClientStream, head: ConnectHead): Promise<string> {
    if (this.#closing) return this.#refuse(stream, 'server-shutdown');
    if (this.refusing) return this.#refuse(stream, this.refusing, 503);
    if (this.#opening > (this.#options.connectsAtOnce ?? CONNECTS_AT_ONCE))
      return this.#refuse(stream, 'connect-rate');
    const { sessions, node, strap } = this.#options;
    const admitted = await admit(head, stream.facts, {
      ...{ sessions, node, strap },
      seenEpoch: () => this.#seenEpoch,
    });
    if (admitted.ok) return this.#serve(stream, head, admitted);
    if (admitted.session) this.#recordRefusal(admitted.session, admitted.reason, stream.facts.peerAddress);
    return this.#refuse(stream, admitted.reason, admitted.status);
  }

  #recordRefusal({ id: sessionId, user, profile }: Session, reason: Reason, address: string): void {
    const node = this.#options.node.name;
    this.#options.events?.append([
      { v: 1, at: this.wallNow(), type: 'connect.refused', user, profile, address, reason, sessionId, node },
    ]);
  }

  #serve(stream: ClientStream, head: ConnectHead, { request, claim, mtu, former }: Admitted): string {
    const { session, lease } = claim;
    if (lease.epoch > this.#seenEpoch) this.#seenEpoch = lease.epoch;
    if (former) this.#options.onTaken?.(former, { sessionId: session.id, upToEpoch: former.epoch });
    const lost = this.#lostAlready(session.id, lease.epoch);
    if (lost === 'superseded') {
      stream.destroy();
      return 'superseded';
    }
    if (lost !== undefined) return this.#refuse(stream, lost);
    const addresses = {
      ipv4: request.wantIpv4 ? claim.addresses.ipv4 : '',
      ipv6: request.wantIpv6 && mtu.ipv6Fits ? claim.addresses.ipv6 : '',
    };
    const sessionRemainingSeconds = remainingSeconds(session, this.wallNow());
    const { mtuBytes } = mtu;
    const id = ++this.#lastId;
    const parts = {
      id,
      lease,
      session,
      addresses,
      mtuBytes,
      mobile: request.mobile,
      sessionRemainingSeconds,
    };
    const tunnel = new Tunnel(parts, stream, this);
    // 6. attach
    const older = this.#bySession.get(session.id);
    if (older) this.#supersede(older);
    if (stream.closed || this.#closing) {
      this.#settle(tunnel, { kind: 'park', reason: this.#closing ? 'server-shutdown' : 'connection-lost' });
      return 'connection-lost';
    }
    this.#attach(tunnel, claim);
    // 7. answer
    const answer = connectAnswer({
      grant: session.grant,
      ...addresses,
      mtuBytes,
      baseMtuBytes: mtu.baseMtuBytes,
      fullIpv6: request.fullIpv6,
      client: request.client,
      gatewayName: this.#options.gatewayName,
      sessionRemainingSeconds,
    });
    stream.writeRecord(Buffer.from(answer, 'latin1'));
    // 8. channel
    tunnel.start(head.early);
    this.#log.debug({ session: session.id, tunnel: id, resumed: claim.resumed }, 'tunnel is up');
    return claim.resumed ? 'resumed' : 'ok';
  }

  #attach(tunnel: Tunnel, { session, returning }: Claimed): void {
    const attachment = {
      tunnelId: tunnel.id,
      ...ownedBy(tunnel),
      mtuBytes: tunnel.mtuBytes,
      onPackets: (packets: readonly Uint8Array[]) => tunnel.deliver(packets),
    };
    try {
      this.engine.attach(attachment);
    } catch (error) {
      const evicted = this.#evictHolders(tunnel);
      if (evicted === 0) this.#settle(tunnel, { kind: 'park', reason: 'error' });
      if (evicted === 0) throw error;
      this.engine.attach(attachment);
    }
    if (this.#announcing) this.#options.returnPath.announce(tunnel.id, attachment, returning);
    this.#byId.set(tunnel.id, tunnel);
    this.#bySession.set(session.id, tunnel);
  }

  /** The store gave an address anew before the notice to its former holder came: the newer lease is right. */
  #evictHolders({ addresses, lease }: Tunnel): number {
    let evicted = 0;
    for (const holder of [...this.#byId.values()]) {
      if (holder.lease.epoch >= lease.epoch) continue;
      const { ipv4, ipv6 } = holder.addresses;
      if ((ipv4 === '' || ipv4 !== addresses.ipv4) && (ipv6 === '' || ipv6 !== addresses.ipv6)) continue;
      this.#supersede(holder);
      evicted += 1;
    }
    return evicted;
  }

  #handleFault(stream: ClientStream, error: unknown): string {
    if (error instanceof ProtocolError) {
      this.#farewell(stream, closingAnswer(error.status));
      return 'protocol-error';
    }
    if (error instanceof StoreUnavailable) {
      this.#leaseCheck.hasten(this.now());
      return this.#refuse(stream, 'store-unavailable');
    }
    this.#log.error({ error: error instanceof Error ? error.message : String(error) }, 'CONNECT failed');
    return this.#refuse(stream, 'error');
  }

  #refuse(stream: ClientStream, reason: Reason, status: number = statusOf(reason)): Reason {
    this.#farewell(stream, closingAnswer(status, reasonText(reason)));
    this.#log.debug({ reason, status }, 'CONNECT refused');
    return reason;
  }

  #farewell(stream: ClientStream, answer: Uint8Array): void {
    if (stream.closed) return;
    stream.farewell(answer);
    this.#leaving.set(stream, this.now());
  }

  now(): number {
    return this.#options.now?.() ?? performance.now();
  }

  wallNow(): Micros {
    return this.#clock();
  }

  dropped(reason: TunnelDrop, packets: number): void {
    this.#options.metrics.dropped(reason, packets);
  }

  /** From the tunnel: it is over. The record comes first, then the client is told. docs/protocol.md §6.4 */
  handleClose(tunnel: Tunnel, close: ChannelClose): void {
    this.#remove(tunnel);
    this.#settle(tunnel, close);
  }

  #settle(tunnel: Tunnel, close: ChannelClose): void {
    const { session, lease } = tunnel;
    const usage = tunnel.usage();
    const store = () =>
      close.kind === 'end'
        ? this.#sessions.endByNode(session.id, lease, close.reason, usage)
        : this.#sessions.park(session.id, lease, close.reason, usage);
    this.#options.metrics.tunnelEnded(close.reason);
    this.#log.debug({ session: session.id, tunnel: tunnel.id, reason: close.reason }, 'tunnel ended');
    void this.#tell(store).then((done) => {
      if (close.kind === 'end' && done !== false) this.#bury(tunnel, close.reason);
      // Fenced off: the session goes on elsewhere, and a DISCONNECT would end this client there too.
      this.#leave(tunnel, done === false ? undefined : close.frame);
    });
  }

  /** @returns what the store said; undefined = it could not be reached, it will be told later. */
  async #tell(call: () => Promise<boolean>): Promise<boolean | undefined> {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof StoreUnavailable)) {
        this.#log.error(
          { error: error instanceof Error ? error.message : String(error) },
          'the session store failed',
        );
      } else if (this.#owed.length < MAX_OWED) this.#owed.push(call);
      return undefined;
    }
  }

  #handleNotice(notice: Notice): void {
    this.#lost.add(notice.sessionId, notice.upToEpoch, notice.reason, this.now());
    const tunnel = this.#bySession.get(notice.sessionId);
    if (tunnel === undefined || tunnel.lease.epoch > notice.upToEpoch) return;
    if (notice.reason === 'superseded') return this.#supersede(tunnel);
    this.#remove(tunnel);
    this.#bury(tunnel, notice.reason);
    this.#options.metrics.tunnelEnded(notice.reason);
    this.#leave(tunnel, tunnel.disconnectFrame(notice.reason));
  }

  #bury(tunnel: Tunnel, endReason: Reason): void {
    const record = tunnel.record();
    this.#ended.add({ ...record, state: 'closed', endedAt: this.wallNow(), endReason, n: record.n + 1 });
  }

  /** Without a packet: the client may be the same process, and a DISCONNECT would end it. docs/protocol.md §6.4 */
  #supersede(tunnel: Tunnel): void {
    this.#remove(tunnel);
    this.#options.metrics.tunnelEnded('superseded');
    this.#leave(tunnel);
  }

  #lostAlready(sessionId: string, epoch: Micros): Reason | undefined {
    const present = this.#bySession.get(sessionId);
    if (present && present.lease.epoch > epoch) return 'superseded';
    return this.#lost.reasonOf(sessionId, epoch);
  }

  #remove(tunnel: Tunnel): void {
    tunnel.silence();
    this.engine.detach(tunnel.id);
    this.#options.returnPath.withdraw(tunnel.id);
    this.#byId.delete(tunnel.id);
    if (this.#bySession.get(tunnel.session.id) === tunnel) this.#bySession.delete(tunnel.session.id);
  }

  #leave(tunnel: Tunnel, frame?: Uint8Array): void {
    tunnel.close(frame);
    this.#leaving.set(tunnel.stream, this.now());
  }

  /** Once a second. */
  handleTick(): void {
    const now = this.now();
    this.#ticks += 1;
    const period = this.#options.checkpointSeconds ?? CHECKPOINT_SECONDS;
    for (const tunnel of this.#byId.values()) {
      tunnel.handleTick(now);
      // In slices, so that no second writes all of them.
      if (tunnel.id % period === this.#ticks % period) this.#checkpoint(tunnel);
    }
    for (const [stream, since] of this.#leaving) {
      if (now - since < LINGER_SECONDS * 1000) break;
      stream.destroy();
      this.#leaving.delete(stream);
    }
    this.#lost.handleTick(now);
    this.#ended.handleTick(this.wallNow());
    for (const call of this.#owed.splice(0, OWED_PER_TICK)) void this.#tell(call);
    void this.#leaseCheck.handleTick(now);
    this.#publishTraffic();
  }

  #checkpoint(tunnel: Tunnel): void {
    const usage = tunnel.usageToCheckpoint();
    // Not owed when the store is away: the next one says the same and more.
    if (!usage) return;
    this.#sessions.checkpoint(tunnel.session.id, tunnel.lease, usage).then(
      (done) => {
        if (done) tunnel.handleRecorded();
        // For certain not our lease: the notice of it is lost, or still on its way.
        else if (this.#byId.has(tunnel.id)) void this.#leaseCheck.verify(tunnel.session.id, tunnel.lease);
      },
      () => undefined,
    );
  }

  #publishTraffic(): void {
    const { traffic } = this;
    this.#options.metrics.traffic('rx', traffic.rxPackets, traffic.rxBytes);
    this.#options.metrics.traffic('tx', traffic.txPackets, traffic.txBytes);
    Object.assign(traffic, { rxPackets: 0, rxBytes: 0, txPackets: 0, txBytes: 0 });
  }

  async tunnels(): Promise<TunnelInfo[]> {
    return [...this.#byId.values()].map((tunnel) =>
      tunnel.describe(this.#options.node.name, this.engine.device),
    );
  }

  async disconnect(sessionIds: string[], reason: Reason): Promise<number> {
    let count = 0;
    for (const sessionId of sessionIds) {
      const tunnel = this.#bySession.get(sessionId);
      if (tunnel === undefined) continue;
      count += 1;
      this.handleClose(tunnel, { kind: 'park', reason, frame: tunnel.disconnectFrame(reason) });
    }
    return count;
  }

  /** Tunnels that the store gave to others, or whose sessions have ended. */
  lose(notices: readonly Notice[]): void {
    for (const notice of notices) {
      if (notice.upToEpoch > this.#seenEpoch) this.#seenEpoch = notice.upToEpoch;
      this.#handleNotice(notice);
    }
  }

  /** What a store that forgot must be told (C1): the session of each tunnel, and those that ended here lately. */
  holdings(): Session[] {
    const live = Array.from(this.#byId.values(), (tunnel) => tunnel.record());
    return [...live, ...this.#ended.list(this.wallNow())];
  }

  /**
   * From the node that has claimed them: the fast path beside the notices, and handled like one. Only the store says which
   * epochs there are: what a node tells must not reach the claims of others.
   */
  release(releases: readonly Release[]): void {
    for (const { sessionId, upToEpoch } of releases)
      this.#handleNotice({ sessionId, upToEpoch, reason: 'superseded' });
  }

  /**
   * Ends some tunnels without a packet and parks their sessions, so that their clients come back at once, elsewhere.
   * @param upTo only tunnels up to this id: who came back here has nowhere else to go.
   * @returns how many.
   */
  async moveAway(count: number, upTo: number): Promise<number> {
    const leaving = [...this.#byId.values()].filter(({ id }) => id <= upTo).slice(0, count);
    await Promise.all(leaving.map((tunnel) => this.#park(tunnel, 'server-shutdown')));
    return leaving.length;
  }

  /** Ends all tunnels like `moveAway`, at once: the store, which cannot be reached, is told later. @returns how many. */
  abandon(reason: Reason): number {
    const leaving = [...this.#byId.values()];
    for (const tunnel of leaving) void this.#park(tunnel, reason);
    return leaving.length;
  }

  #park(tunnel: Tunnel, reason: Reason): Promise<unknown> {
    this.#remove(tunnel);
    this.#options.metrics.tunnelEnded(reason);
    const { session, lease } = tunnel;
    const usage = tunnel.usage();
    const parked = this.#tell(() => this.#sessions.park(session.id, lease, reason, usage));
    this.#leave(tunnel);
    return parked;
  }

  /** Planned stop: the sessions are parked, the connections end without a packet, and the clients come back. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    clearInterval(this.#ticker);
    this.#stopNotices();
    await Promise.all([...this.#byId.values()].map((tunnel) => this.#park(tunnel, 'server-shutdown')));
    this.#publishTraffic();
    const until = performance.now() + CLOSE_MS;
    while (performance.now() < until && [...this.#leaving.keys()].some((stream) => !stream.closed)) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    for (const stream of this.#leaving.keys()) stream.destroy();
    this.#leaving.clear();
  }
}

/** What the tunnel of a client takes from the network. */
function ownedBy({ addresses, session }: Tunnel) {
  return { ...addresses, ipv6PrefixLength: session.grant.ipv6SubnetPrefix };
}

const TICK_MS = 1000;
export const CHECKPOINT_SECONDS = 60;
/** How long a connection that was told to end may stay open. */
const LINGER_SECONDS = 5;
const CLOSE_MS = 1000;
export const CONNECTS_AT_ONCE = 2048;
const MAX_OWED = 20_000;
const OWED_PER_TICK = 500;
