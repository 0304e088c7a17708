/** The real `openconnect`, run in a client's namespace. */
import type { KeyPair } from './certificates.ts';
import type { Lab, Spawned } from './lab.ts';
import { eventually, PATIENCE_MS, ROOT } from './run.ts';

export interface OpenconnectOptions {
  lab: Lab;
  /** `pin-sha256:…` */
  pin: string;
  namespace?: string;
  /** `https://192.0.2.1` unless told. */
  url?: string;
  user?: string;
  /** Given on stdin, once. */
  password?: string;
  /** Lines for the prompts, in order, instead of `password`: as a person types them. */
  answers?: readonly string[];
  group?: string;
  certificate?: KeyPair;
  /** More arguments, e.g. `--no-xmlpost`. */
  more?: readonly string[];
  device?: string;
}

export interface TunnelUp {
  device: string;
  ipv4: string;
  ipv6: string;
  mtu: number;
  dns: string;
}

export class Openconnect {
  readonly #process: Spawned;

  /** Starts it; `whenUp()` waits for the tunnel. */
  static start(options: OpenconnectOptions): Openconnect {
    return new Openconnect(options);
  }

  /** Starts it and waits for the tunnel. @throws with its output when there is none. */
  static async connect(options: OpenconnectOptions): Promise<Openconnect> {
    const client = new Openconnect(options);
    await client.whenUp();
    return client;
  }

  /** `--authenticate`: logs in and prints what a tunnel process needs. */
  static async authenticate(
    options: OpenconnectOptions,
  ): Promise<{ cookie: string; fingerprint: string; output: string }> {
    const client = new Openconnect({ ...options, more: ['--authenticate', ...(options.more ?? [])] });
    const code = await client.exited;
    const value = (name: string) => new RegExp(`^${name}='(.*)'$`, 'm').exec(client.output)?.[1] ?? '';
    if (code !== 0 || value('COOKIE') === '')
      throw new Error(`no cookie (exit code ${code}):\n${client.output}`);
    return { cookie: value('COOKIE'), fingerprint: value('FINGERPRINT'), output: client.output };
  }

  private constructor(options: OpenconnectOptions) {
    const argv = [
      ...['openconnect', '--protocol=anyconnect', options.url ?? `https://${options.lab.gatewayIpv4}`],
      ...['--servercert', options.pin, '--script', VPN_SCRIPT, '--interface', options.device ?? 'tun0'],
      ...['--no-dtls', '-v', ...(options.more ?? [])],
    ];
    if (options.user !== undefined) argv.push('--user', options.user);
    if (options.group !== undefined) argv.push('--authgroup', options.group);
    if (options.certificate !== undefined) {
      argv.push('--certificate', options.certificate.cert, '--sslkey', options.certificate.key);
    }
    let input = '';
    if (options.answers !== undefined) input = options.answers.map((line) => `${line}\n`).join('');
    else {
      argv.push('--non-inter');
      if (options.password !== undefined) {
        argv.push('--passwd-on-stdin');
        input = `${options.password}\n`;
      }
    }
    this.#process = options.lab.spawn(options.namespace ?? options.lab.client(), argv, { input });
  }

  get pid(): number {
    return this.#process.pid;
  }
  /** All that it printed. */
  get output(): string {
    return this.#process.output();
  }
  get exited(): Promise<number> {
    return this.#process.exited;
  }
  get alive(): boolean {
    return this.#process.child.exitCode === null && this.#process.child.signalCode === null;
  }

  async whenUp(timeoutMs = PATIENCE_MS): Promise<TunnelUp> {
    await eventually(
      'tunnel',
      () => {
        if (!this.alive) throw new Error(`openconnect ended without a tunnel:\n${this.output}`);
        return this.tunnel !== undefined;
      },
      timeoutMs,
    ).catch((error: unknown) => {
      throw new Error(`no tunnel:\n${this.output}`, { cause: error });
    });
    const { tunnel } = this;
    if (tunnel === undefined) throw new Error('no tunnel');
    return tunnel;
  }

  /** What the script was told. */
  get tunnel(): TunnelUp | undefined {
    const line = /^TUNNEL-UP dev=(\S*) ipv4=(\S*) ipv6=(\S*) mtu=(\d+) dns=(.*) domain=/m.exec(this.output);
    if (line === null) return undefined;
    const [, device = '', ipv4 = '', ipv6 = '', mtu = '', dns = ''] = line;
    return { device, ipv4, ipv6, mtu: Number(mtu), dns };
  }

  /** How often a pattern occurs in its output. */
  count(pattern: RegExp): number {
    return [...this.output.matchAll(new RegExp(pattern.source, `g${pattern.flags.replace('g', '')}`))].length;
  }
  /** CONNECT requests that were answered. */
  get connects(): number {
    return this.count(/Got CONNECT response: HTTP\/1\.1 200/);
  }
  get posts(): number {
    return this.count(/^(?:\[[^\]]*\] )?POST https?:/m);
  }

  async whenConnects(count: number, timeoutMs = PATIENCE_MS): Promise<void> {
    await eventually(`CONNECT number ${count}`, () => this.connects >= count, timeoutMs).catch(
      (error: unknown) => {
        throw new Error(`no CONNECT number ${count}:\n${this.output}`, { cause: error });
      },
    );
  }

  /** SIGINT logs out with BYE; SIGHUP leaves without one; SIGUSR2 reconnects. */
  signal(name: 'SIGINT' | 'SIGTERM' | 'SIGHUP' | 'SIGUSR2' | 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'): void {
    process.kill(this.pid, name);
  }

  /** Ends it with BYE and waits. */
  async stop(): Promise<number> {
    if (this.alive) this.signal('SIGINT');
    return this.exited;
  }
}

export const VPN_SCRIPT = `${ROOT}test/harness/vpn-script.sh`;
