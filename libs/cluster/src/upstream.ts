import type { ServerResponse } from 'node:http';
import type { CertificateFacts } from './auth-service.ts';

/**
 * What the edge hands to portal and downloader: one HTTP request whose head and body are within the limits, with the
 * facts of its connection. In one process it is a call; between processes it is HTTP, facts in `X-Sallyport-*` headers
 * that the edge strips from what clients send.
 */
export interface InsideRequest {
  method: string;
  /** As sent, with query: not decoded, not normalised. */
  target: string;
  /** Names in lower case; of repeated headers the first, except `cookie` (joined with '; '). */
  headers: Record<string, string>;
  body: Uint8Array;
  facts: ConnectionFacts;
}

export interface ConnectionFacts {
  clientAddress: string;
  /** SNI; '' = none. */
  serverName: string;
  /** SHA-1 of the DER of the leaf presented on this very TLS connection, 40 upper-case hex digits (PROTOCOL §4.2). */
  servedLeafSha1: string;
  tlsVersion: string;
  certificate?: CertificateFacts;
}

export interface InsideResponse {
  status: number;
  /** Spelled as clients want them. Content-Length and Connection are the edge's. */
  headers: [name: string, value: string][];
  body: Uint8Array | FileRange;
  /** Close the connection after this answer. */
  close?: boolean;
}

/** Bytes of a file that is open already: the reader cannot be led elsewhere. The edge closes it. */
export interface FileRange {
  file: {
    read(
      buffer: Uint8Array,
      offset: number,
      length: number,
      position: number,
    ): Promise<{ bytesRead: number }>;
    close(): Promise<void>;
  };
  start: number;
  length: number;
}

export type Upstream = (request: InsideRequest) => Promise<InsideResponse>;

/** Writes the body and ends the response, no faster than the other side takes it. */
export async function streamFile(response: ServerResponse, range: FileRange): Promise<void> {
  const end = range.start + range.length;
  for (let position = range.start; position < end && !response.destroyed;) {
    const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, end - position));
    const { bytesRead } = await range.file.read(buffer, 0, buffer.length, position);
    // Shorter than announced: the other side must not take what it has for the whole.
    if (bytesRead === 0) return void response.destroy();
    position += bytesRead;
    if (!response.write(buffer.subarray(0, bytesRead))) await drained(response);
  }
  response.end();
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      response.off('drain', finish).off('close', finish);
      resolve();
    };
    response.on('drain', finish).on('close', finish);
  });
}

const CHUNK_BYTES = 65_536;
