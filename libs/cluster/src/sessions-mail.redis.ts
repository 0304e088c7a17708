import { REASONS, type Reason } from '@sallyport/protocol';
import { LatestRead } from './latest-read.ts';
import { loadScript } from './scripts.ts';
import type { NodeIdentity } from './session.ts';
import type { Notice } from './sessions.ts';

/** Fetches the notices of one incarnation until it is stopped. */
export class Mail {
  readonly #node: NodeIdentity;
  readonly #deliver: (notices: Notice[]) => void;
  readonly #fetch: (args: object) => Promise<(string | number)[]>;
  readonly #pollMillis: number;
  #taken = '';
  readonly #reading = new LatestRead(() => this.#read());
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(
    node: NodeIdentity,
    deliver: (notices: Notice[]) => void,
    fetch: (args: object) => Promise<(string | number)[]>,
    pollMillis: number,
  ) {
    this.#node = node;
    this.#deliver = deliver;
    this.#fetch = fetch;
    this.#pollMillis = pollMillis;
    void this.#turn();
  }

  isOf({ name, incarnation }: NodeIdentity): boolean {
    return this.#node.name === name && this.#node.incarnation === incarnation;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #turn(): Promise<void> {
    let count = 0;
    try {
      count = await this.#reading.run();
    } catch {
      // Redis is away or the receiver threw: the same notices come again with the next turn.
    }
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void this.#turn(), count > 0 ? 0 : this.#pollMillis);
  }

  /** Delivers what is there now. */
  async fetch(): Promise<void> {
    while ((await this.#reading.run()) === MAIL_BATCH);
  }

  async #read(): Promise<number> {
    const { name, incarnation } = this.#node;
    const args = { node: name, incarnation, taken: this.#taken, limit: MAIL_BATCH };
    const entries = (await this.#fetch(args)).map(String);
    const last = entries.at(-1);
    if (this.#stopped || last === undefined) return 0;
    this.#deliver(entries.map(noticeOf));
    this.#taken = last;
    return entries.length;
  }
}

export const MAIL_SCRIPT = loadScript('mail', ['records']);

/** How soon a node learns what it lost, besides the call of the node that took it (CLUSTER.md C2): an end counts within 1 s. */
export const POLL_MILLIS = 500;
const MAIL_BATCH = 256;

function noticeOf(entry: string): Notice {
  const [, sessionId = '', epoch = '0', reason] = entry.split(' ');
  return { sessionId, upToEpoch: BigInt(epoch), reason: reasonOf(reason) };
}

/** A reason as Redis has it; one of another release is `unspecified`. */
export function reasonOf(value: string | number | undefined): Reason {
  const name = String(value);
  return isReason(name) ? name : 'unspecified';
}

function isReason(name: string): name is Reason {
  return Object.hasOwn(REASONS, name);
}
