/** The peer broke the rules. Carries what to answer; the connection is closed after it. */
export class ProtocolError extends Error {
  /** HTTP status to answer while HTTP is still spoken; ignored inside a tunnel. */
  readonly status: number;

  /** @param message for logs: what the peer did, without its data. */
  constructor(message: string, status = 400) {
    super(message);
    this.name = 'ProtocolError';
    this.status = status;
  }
}
