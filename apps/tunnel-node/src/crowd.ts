/**
 * Notices that very many connections share very few addresses. That is how a balancer looks that hides its clients: then
 * limits and bans by address hit all of them together. It can also be one large NAT, so this only tells, once.
 */
export class Crowd {
  #hasTold = false;

  /**
   * @param open connections by address. @param connections of all addresses with TLS.
   * @returns the busiest address, once; undefined = nothing to tell.
   */
  handleTick(
    open: ReadonlyMap<string, number>,
    connections: number,
  ): { address: string; connections: number } | undefined {
    if (this.#hasTold || connections < CROWD_CONNECTIONS) return undefined;
    if (open.size * CROWD_PER_ADDRESS > connections) return undefined;
    this.#hasTold = true;
    const [address = '', count = 0] = [...open].sort((a, b) => b[1] - a[1])[0] ?? [];
    return { address, connections: count };
  }
}

export const CROWD_CONNECTIONS = 100;
/** Fewer on average are an office. */
export const CROWD_PER_ADDRESS = 25;
