import type { Micros } from '@sallyport/cluster';

export type { Account, AccountOrder, Accounts } from '@sallyport/cluster';

/** What the admin service asks of the process it runs in. */
export interface Lifecycle {
  status(): GatewayStatus;
  /** Reads the configuration, certificates and users anew; with errors the old ones stay. Never throws for them. */
  reload(): Promise<ReloadResult>;
  /** Begins a planned stop and returns at once. */
  stop(): void;
}

export interface GatewayStatus {
  state: 'starting' | 'online' | 'stopping';
  version: string;
  node: string;
  /** Of the configuration in use. */
  revision: string;
  startedAt: Micros;
}

export interface ReloadResult {
  applied: boolean;
  revision: string;
  /** Changed keys that take effect at the next start. */
  waiting: string[];
  /** `FILE:LINE: message`. */
  errors: string[];
  /** Files other than the configuration itself that have changed and are in use now. */
  files: string[];
  /** What loads and will not please clients. */
  warnings: string[];
}
