import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLog } from '@sallyport/chassis';
import { PeerCertificates, type PeerFiles, type PeerRole } from './peers.ts';
import { initAuthority, issueCertificate } from './pki.ts';

/** A real CA in a folder of its own, for tests. */
export class TestAuthority {
  readonly folder: string;
  readonly #opened: PeerCertificates[] = [];

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async open(): Promise<TestAuthority> {
    const folder = await mkdtemp(join(tmpdir(), 'sallyport-pki-'));
    await initAuthority(folder, { cluster: 'test' });
    return new TestAuthority(folder);
  }

  /** @param hosts of a certificate; roles without hosts are enough. */
  async issue(name: string, roles: PeerRole[], days = 2): Promise<PeerFiles> {
    await issueCertificate(this.folder, { name, roles, hosts: [], days });
    return this.files(name);
  }

  files(name: string): PeerFiles {
    const { folder } = this;
    return {
      ca: join(folder, 'ca.pem'),
      cert: join(folder, `${name}.pem`),
      key: join(folder, `${name}.key`),
    };
  }

  async peer(name: string, roles: PeerRole[]): Promise<PeerCertificates> {
    const peer = await PeerCertificates.open(await this.issue(name, roles), QUIET);
    this.#opened.push(peer);
    return peer;
  }

  async close(): Promise<void> {
    for (const peer of this.#opened) peer.close();
    await rm(this.folder, { recursive: true });
  }
}

export const QUIET = createLog({ name: 'test', level: 'silent' });
