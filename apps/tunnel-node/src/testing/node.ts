import assert from 'node:assert/strict';
import type { MemorySessions, Sessions } from '@sallyport/cluster';
import { TestClient } from './client.ts';
import type { World } from './world.ts';

/** A node in the middle of its world, with clients that end with it. */
export class TestNode {
  readonly #clients: TestClient[] = [];

  constructor(private readonly world: World) {}

  get tunnels() {
    return this.world.tunnels;
  }
  get sessions() {
    return this.world.sessions;
  }
  get events() {
    return this.world.events;
  }
  get device() {
    return this.world.device;
  }
  session(...input: Parameters<World['session']>) {
    return this.world.session(...input);
  }
  metric(line: string) {
    return this.world.metric(line);
  }

  async client(version?: 'TLSv1.2' | 'TLSv1.3'): Promise<TestClient> {
    const client = await TestClient.tls(this.world.port, version ? { version } : {});
    this.#clients.push(client);
    return client;
  }

  /** A client with a tunnel. */
  async up(options: { version?: 'TLSv1.2' | 'TLSv1.3'; grant?: Parameters<World['session']>[0] } = {}) {
    const { token, session } = await this.world.session(options.grant);
    const client = await this.client(options.version);
    const answer = await client.connect(token);
    assert.equal(answer.status, 200);
    return { client, token, session, address: header(answer.headers, 'X-CSTP-Address') };
  }

  /** Most bytes that wait for one client. */
  pending(): number {
    return this.world.pendingBytes();
  }

  async [Symbol.asyncDispose]() {
    for (const client of this.#clients) client.destroy();
    await this.world.close();
  }
}

/** The store with some calls replaced. */
export function between(sessions: MemorySessions, calls: Partial<Sessions>): Sessions {
  return new Proxy<Sessions>(sessions, {
    get(_target, name) {
      const given: unknown = Reflect.get(calls, name);
      if (given !== undefined) return given;
      const own: unknown = Reflect.get(sessions, name, sessions);
      return typeof own === 'function' ? (own.bind(sessions) as unknown) : own;
    },
  });
}

export function header(headers: readonly [string, string][], name: string): string {
  return headers.find(([key]) => key === name)?.[1] ?? '';
}

/** A UDP packet without content. */
export function ipv4(from: string, to: string, length: number): Buffer {
  const packet = Buffer.alloc(length);
  packet[0] = 0x45;
  packet.writeUInt16BE(length, 2);
  packet[8] = 64;
  packet[9] = 17;
  packet.set(from.split('.').map(Number), 12);
  packet.set(to.split('.').map(Number), 16);
  return packet;
}

export function until(condition: () => boolean): Promise<void> {
  return untilAsync(async () => condition());
}

export async function untilAsync(condition: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + WAIT_MS;
  while (!(await condition())) {
    if (Date.now() > end) assert.fail('did not happen in time');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Far more than anything waited for takes, also on a busy machine. */
const WAIT_MS = 30_000;
