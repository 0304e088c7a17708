/** What most tests need: a laboratory, certificates, users, and our gateway between client and LAN. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AnyConnect, type AnyConnectOptions } from './anyconnect.ts';
import { Authority, pinOf, userLine, type KeyPair } from './certificates.ts';
import { Gateway, type Launch, type SettingsDocument } from './gateway.ts';
import { Lab, type LabOptions } from './lab.ts';
import { Openconnect, type OpenconnectOptions } from './openconnect.ts';

export interface WorldOptions extends LabOptions {
  /** Added to, and replacing, the keys of `settings()`. */
  settings?: SettingsDocument | ((world: { folder: string; authority: Authority }) => SettingsDocument);
  users?: readonly TestUser[];
  /** What runs the gateway; bin/sallyport unless told. */
  launch?: Launch;
}

export interface TestUser {
  name: string;
  password: string;
  groups?: readonly string[];
}

const DEFAULT_GROUP = 'Staff';
export const ALICE: TestUser = { name: 'alice', password: 'correct horse', groups: ['staff'] };
export const BOB: TestUser = { name: 'bob', password: 'battery staple', groups: ['guests'] };

export class World {
  static async open(options: WorldOptions = {}): Promise<World> {
    const lab = await Lab.open(options);
    try {
      const authority = await Authority.create(join(lab.folder, 'pki'));
      const server = await authority.server('ecdsa', 'vpn.example.test', [lab.gatewayIpv4, lab.gatewayIpv6]);
      const usersFile = join(lab.folder, 'users');
      const lines = (options.users ?? [ALICE, BOB]).map(({ name, password, groups }) =>
        userLine(name, password, groups),
      );
      writeFileSync(usersFile, (await Promise.all(lines)).join(''), { mode: 0o600 });
      const own = options.settings;
      const extra = typeof own === 'function' ? own({ folder: lab.folder, authority }) : (own ?? {});
      const settings = { ...basicSettings(server, usersFile), ...extra };
      const gateway = await Gateway.start(lab, settings, options.launch ? { launch: options.launch } : {});
      return new World(lab, authority, server, usersFile, settings, gateway);
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  private constructor(
    readonly lab: Lab,
    readonly authority: Authority,
    readonly server: KeyPair,
    readonly usersFile: string,
    /** As the gateway was started with. */
    readonly settings: SettingsDocument,
    readonly gateway: Gateway,
  ) {}

  get pin(): string {
    return pinOf(this.server.cert);
  }

  anyConnect(options: Partial<AnyConnectOptions> = {}): AnyConnect {
    return new AnyConnect({ lab: this.lab, ...options });
  }

  /** A scripted client that has logged in. */
  async loggedIn(user: TestUser = ALICE, options: Partial<AnyConnectOptions> = {}): Promise<AnyConnect> {
    const client = this.anyConnect(options);
    const step = await client.login(user.name, user.password);
    if (step.authId !== 'success') throw new Error(`login refused: ${step.error}${step.message}`);
    return client;
  }

  openconnect(user: TestUser = ALICE, options: Partial<OpenconnectOptions> = {}): Openconnect {
    return Openconnect.start(this.#openconnectOptions(user, options));
  }

  /** A real client with its tunnel up. */
  connected(user: TestUser = ALICE, options: Partial<OpenconnectOptions> = {}): Promise<Openconnect> {
    return Openconnect.connect(this.#openconnectOptions(user, options));
  }

  authenticate(user: TestUser = ALICE, options: Partial<OpenconnectOptions> = {}) {
    return Openconnect.authenticate(this.#openconnectOptions(user, options));
  }

  #openconnectOptions(user: TestUser, options: Partial<OpenconnectOptions>): OpenconnectOptions {
    const own = { lab: this.lab, pin: this.pin, user: user.name, password: user.password, ...options };
    // Without a group openconnect would ask for one.
    return own.password === undefined ? own : { group: DEFAULT_GROUP, ...own };
  }

  async close(): Promise<void> {
    if (this.gateway.running) await this.gateway.stop();
    await this.lab.close();
  }
}

/** Two profiles, one LAN behind, short times where tests would else wait. */
export function basicSettings(server: KeyPair, usersFile: string): SettingsDocument {
  return {
    'server-cert': server.cert,
    'server-key': server.key,
    'return-path': 'none',
    'users-file': usersFile,
    'ipv4-network': '10.77.0.0/24',
    'ipv6-network': 'fd00:77::/64',
    route: ['198.51.100.0/24', '2001:db8:2::/64'],
    dns: ['198.51.100.2'],
    'max-login-tries': 3,
    'connects-per-token': 0,
    'max-same-clients': 0,
    'max-connections-per-address': 0,
    'max-logins-per-address': 0,
    'log-level': 'debug',
    profiles: {
      staff: { label: 'Staff', methods: ['local'], default: true },
      guests: { label: 'Guests', methods: ['local'] },
    },
  };
}
