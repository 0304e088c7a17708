/**
 * Clients of our gRPC contracts, each in the shape of the interface that the service itself has, so that who uses it does
 * not know whether it runs in the same process.
 *
 * What is repeated on another replica when the first one is lost in the middle:
 *
 *   auth.Begin      yes  a login that nobody answers is forgotten after its time
 *   auth.Reply      yes  by handle: one that was answered already shows the present form; a right one is granted again and
 *                        the session that nobody used is replaced (apps/auth/src/login.ts). It costs one try at most
 *   auth.Logout     yes  ending what has ended does nothing; the answer may say `ended: false`
 *   auth.Lookup, catalog.Announce, node.ListTunnels, node.Status, node.StoreSilence   yes, they read
 *   node.Release    yes  fenced by epoch
 *   node.Drain      yes  the state is named, not switched
 *   account.*       yes  they read, and who is locked twice is locked
 *   node.Disconnect no   the client may be back already, and would be disconnected again
 */
import { ONLY_AT_AUTH, type Accounts, type ExplainPolicy } from './accounts.ts';
import type { AuthService, CatalogService } from './auth-service.ts';
import {
  accountsFrom,
  announcementFrom,
  explainedFrom,
  loginAnswerFrom,
  logoutFrom,
  lookupFrom,
  problemFrom,
} from './auth-wire.ts';
import type { PeerNode, TunnelInfo } from './node-service.ts';
import {
  countFrom,
  drainingFrom,
  releasesMessage,
  silenceFrom,
  statusFrom,
  tunnelsFrom,
} from './node-wire.ts';
import type { PeerRole } from './peers.ts';
import type { RpcClient, RpcOptions } from './rpc-client.ts';
import type { RpcServerOptions } from './rpc-server.ts';
import { ACCOUNT_WIRE, AUTH_WIRE, CATALOG_WIRE, NODE_WIRE, type Wire } from './wire.ts';

/**
 * Injection tokens of the services as their users see them. What stands behind a token is wired by the program: the
 * service itself when both run in one process, a client of its gRPC contract otherwise.
 */
export const AUTH_SERVICE = Symbol('AuthService');
export const CATALOG_SERVICE = Symbol('CatalogService');

export interface Closable {
  close(): void;
}

/** @throws Error when the contract cannot be read; whether anybody answers shows at the first call. */
export async function authClient(options: RpcOptions): Promise<AuthService & Closable> {
  const rpc = await openClient('auth', AUTH_WIRE, options);
  const slow = { repeatable: true, deadlineMs: LOGIN_DEADLINE_MS };
  const quick = { repeatable: true, deadlineMs: QUICK_DEADLINE_MS };
  return {
    begin: async (request) => loginAnswerFrom(await rpc.unary('Begin', request, slow)),
    reply: async (request) => loginAnswerFrom(await rpc.unary('Reply', request, slow)),
    logout: async (request) => logoutFrom(await rpc.unary('Logout', request, quick)),
    lookup: async (request) => lookupFrom(await rpc.unary('Lookup', request, quick)),
    close: () => rpc.close(),
  };
}

export async function catalogClient(options: RpcOptions): Promise<CatalogService & Closable> {
  const rpc = await openClient('downloader', CATALOG_WIRE, options);
  const quick = { repeatable: true, deadlineMs: QUICK_DEADLINE_MS };
  return {
    announce: async (request) => announcementFrom(await rpc.unary('Announce', request, quick)),
    close: () => rpc.close(),
  };
}

/** Users as auth knows them, for a tunnel node: it may lock them and change nothing else (docs/decisions/0007). */
export async function accountClient(
  options: RpcOptions,
): Promise<Accounts & { explain: ExplainPolicy } & Closable> {
  const rpc = await openClient('auth', ACCOUNT_WIRE, options);
  const quick = { repeatable: true, deadlineMs: QUICK_DEADLINE_MS };
  return {
    list: async () => accountsFrom(await rpc.unary('ListAccounts', {}, quick)),
    async apply(order) {
      if (order.verb !== 'lock') throw new Error(ONLY_AT_AUTH);
      const problem = problemFrom(await rpc.unary('LockAccount', { name: order.name }, quick));
      if (problem !== '') throw new Error(problem);
    },
    explain: async (user, profile) =>
      explainedFrom(await rpc.unary('ExplainPolicy', { user, profile }, quick)),
    close: () => rpc.close(),
  };
}

/** One node: its addresses are all its own. */
export async function nodeClient(options: RpcOptions): Promise<PeerNode & Closable> {
  const rpc = await openClient('tunnel-node', NODE_WIRE, options);
  const reads = { repeatable: true, deadlineMs: QUICK_DEADLINE_MS };
  const changes = { repeatable: false, deadlineMs: QUICK_DEADLINE_MS };
  return {
    async tunnels() {
      const all: TunnelInfo[] = [];
      for (const page of await rpc.pages('ListTunnels', {}, { ...reads, deadlineMs: PAGES_DEADLINE_MS }))
        all.push(...tunnelsFrom(page));
      return all;
    },
    disconnect: async (sessionIds, reason) =>
      countFrom(await rpc.unary('Disconnect', { sessionIds, reason }, changes)),
    async release(releases) {
      await rpc.unary('Release', releasesMessage(releases), reads);
    },
    drain: async (drain) => drainingFrom(await rpc.unary('Drain', { drain }, reads)),
    status: async () => statusFrom(await rpc.unary('Status', {}, reads)),
    storeSilence: async () =>
      silenceFrom(await rpc.unary('StoreSilence', {}, { ...reads, deadlineMs: SILENCE_DEADLINE_MS })),
    close: () => rpc.close(),
  };
}

/** Options of Nest's gRPC transport for a service of ours, and the health that it serves. */
export async function rpcServer(options: RpcServerOptions) {
  const { rpcServer } = await import('./rpc-server.ts');
  return rpcServer(options);
}

async function openClient(role: PeerRole, wire: Wire, options: RpcOptions): Promise<RpcClient> {
  const { RpcClient } = await import('./rpc-client.ts');
  return RpcClient.open(role, wire, options);
}

/** Less than the edge waits for an answer. */
export const LOGIN_DEADLINE_MS = 45_000;
export const QUICK_DEADLINE_MS = 5_000;
/** Who asks has a second for it. */
const SILENCE_DEADLINE_MS = 2_000;
const PAGES_DEADLINE_MS = 20_000;
