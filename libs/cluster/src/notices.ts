import type { NodeIdentity } from './session.ts';
import type { Notice } from './sessions.ts';

/**
 * What nodes must be told, one mailbox per incarnation. Delivered in a later microtask, in order, and again when the
 * receiver threw; kept (bounded) until somebody listens.
 */
export class Mailboxes {
  readonly #boxes = new Map<string, Mailbox>();

  post(node: NodeIdentity, notice: Notice): void {
    const box = this.#box(node);
    box.waiting.push(notice);
    if (box.waiting.length > MAILBOX_LIMIT) box.waiting.shift();
    this.#schedule(box);
  }

  /** One listener per incarnation: a later one takes its place. @returns how to stop. */
  listen(node: NodeIdentity, deliver: (notices: Notice[]) => void): () => void {
    const box = this.#box(node);
    box.deliver = deliver;
    this.#schedule(box);
    return () => {
      if (box.deliver === deliver) box.deliver = undefined;
    };
  }

  /** Older incarnations of a node are gone: nobody will read their mail. */
  forgetOlder(node: NodeIdentity): void {
    for (const [key, box] of this.#boxes) {
      if (box.node.name === node.name && box.node.incarnation !== node.incarnation) this.#boxes.delete(key);
    }
  }

  /** Tries again what a receiver did not take. */
  retry(): void {
    for (const box of this.#boxes.values()) this.#schedule(box);
  }

  close(): void {
    for (const box of this.#boxes.values()) box.deliver = undefined;
    this.#boxes.clear();
  }

  #box(node: NodeIdentity): Mailbox {
    const key = JSON.stringify([node.name, node.incarnation]);
    const known = this.#boxes.get(key);
    if (known !== undefined) return known;
    const box: Mailbox = { node, waiting: [], deliver: undefined, scheduled: false };
    this.#boxes.set(key, box);
    if (this.#boxes.size > MAILBOXES_LIMIT) this.#dropSilent();
    return box;
  }

  #dropSilent(): void {
    for (const [key, box] of this.#boxes) {
      if (box.deliver !== undefined) continue;
      this.#boxes.delete(key);
      return;
    }
  }

  #schedule(box: Mailbox): void {
    if (box.scheduled || box.deliver === undefined || box.waiting.length === 0) return;
    box.scheduled = true;
    queueMicrotask(() => {
      box.scheduled = false;
      if (box.deliver === undefined) return;
      const notices = box.waiting.splice(0);
      try {
        box.deliver(notices);
      } catch {
        box.waiting.unshift(...notices); // at least once: `retry` comes with the next sweep
      }
    });
  }
}

interface Mailbox {
  node: NodeIdentity;
  waiting: Notice[];
  deliver: ((notices: Notice[]) => void) | undefined;
  scheduled: boolean;
}

/** Notices that wait for one node; above it the oldest are dropped. */
export const MAILBOX_LIMIT = 65_536;
/** Incarnations with mail; above it the oldest that nobody listens to is dropped. */
export const MAILBOXES_LIMIT = 64;
