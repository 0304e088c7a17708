import type { FileHandle } from 'node:fs/promises';
import type { InsideRequest, InsideResponse } from '@sallyport/cluster';

/** GET and HEAD of something that has a tag: conditions and ranges (RFC 9110 §13, §14). */

export interface Bytes {
  type: string;
  body: Uint8Array;
  /** Hash of the content; '' = not cached. */
  tag: string;
}

export interface File {
  type: string;
  /** Closed by whoever sends the answer, or here if it is not needed. */
  file: FileHandle;
  size: number;
  tag: string;
}

export function serveBytes(request: InsideRequest, { type, body, tag }: Bytes): InsideResponse {
  const plan = planOf(request, type, body.length, tag);
  return { ...plan.head, body: body.subarray(plan.start, plan.start + plan.length) };
}

export async function serveFile(
  request: InsideRequest,
  { type, file, size, tag }: File,
): Promise<InsideResponse> {
  const plan = planOf(request, type, size, tag);
  if (plan.length > 0) return { ...plan.head, body: { file, start: plan.start, length: plan.length } };
  await file.close();
  return { ...plan.head, body: new Uint8Array() };
}

export function empty(status: number, headers: [string, string][] = []): InsideResponse {
  return { status, headers, body: new Uint8Array(), ...(status !== 304 && { close: true }) };
}

/** The client logs in again. */
export const UNAUTHORIZED: InsideResponse = { status: 401, headers: [], body: new Uint8Array(), close: true };

interface Plan {
  head: { status: number; headers: [string, string][] };
  start: number;
  length: number;
}

function planOf({ headers }: InsideRequest, type: string, size: number, tag: string): Plan {
  const common: [string, string][] = [['Content-Type', type]];
  if (tag === '') return { head: { status: 200, headers: common }, start: 0, length: size };
  const etag = `"${tag}"`;
  common.push(['ETag', etag], ['Accept-Ranges', 'bytes'], ['Cache-Control', 'private, no-cache']);
  if (matches(headers['if-none-match'] ?? '', etag))
    return { head: { status: 304, headers: common.slice(1) }, start: 0, length: 0 };
  // RFC 9110 §13.1.5: the range counts only if the client has part of this very content.
  const mayRange = headers['if-range'] === undefined || headers['if-range'].trim() === etag;
  const range = mayRange ? rangeOf(headers['range'] ?? '', size) : 'whole';
  if (range === 'whole') return { head: { status: 200, headers: common }, start: 0, length: size };
  if (range === 'outside')
    return { head: { status: 416, headers: [['Content-Range', `bytes */${size}`]] }, start: 0, length: 0 };
  common.push(['Content-Range', `bytes ${range.start}-${range.start + range.length - 1}/${size}`]);
  return { head: { status: 206, headers: common }, ...range };
}

/** RFC 9110 §13.1.2: compared weakly. */
function matches(header: string, etag: string): boolean {
  return header
    .slice(0, MAX_CONDITION_LENGTH)
    .split(',')
    .some((given) => {
      const tag = given.trim();
      return tag === '*' || tag.replace(/^W\//, '') === etag;
    });
}

/** One range is answered; several, another unit or nonsense get the whole (RFC 9110 §14.2 allows it). */
function rangeOf(header: string, size: number): { start: number; length: number } | 'whole' | 'outside' {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header.trim());
  const [, from = '', to = ''] = match ?? [];
  if (from === '' && to === '') return 'whole';
  if (from === '') {
    const length = Math.min(Number(to), size);
    return length === 0 ? 'outside' : { start: size - length, length };
  }
  const start = Number(from);
  const end = to === '' ? size - 1 : Math.min(Number(to), size - 1);
  if (to !== '' && Number(to) < start) return 'whole';
  return start >= size ? 'outside' : { start, length: end - start + 1 };
}

const MAX_CONDITION_LENGTH = 4096;
