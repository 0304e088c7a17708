/** Types of values that several tables of keys use. */
import { parsed, text } from '@sallyport/chassis';
import type { Key, ValueType } from '@sallyport/chassis';
import { parseAddress } from '@sallyport/protocol';

const MAX_PATH_BYTES = 4096;
export const path = text(MAX_PATH_BYTES);

const LABEL = '[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?';
export const DOMAIN = new RegExp(`^(?=.{1,253}$)${LABEL}(?:\\.${LABEL})*$`);
export const hostAndPort = parsed<string>('HOST:PORT', (value) => {
  const found = /^(?:\[([^\]]+)\]|([^:\s]+)):(\d{1,5})$/.exec(value);
  if (!found) return { problem: 'is not HOST:PORT, for example 127.0.0.1:9480' };
  const [, ipv6, host = '', portText] = found;
  const good = ipv6 === undefined ? DOMAIN.test(host) : parseAddress(ipv6)?.length === 16;
  if (!good) return { problem: 'names no host; write for example 127.0.0.1:9480 or [::1]:9480' };
  const number = Number(portText);
  return number >= 1 && number <= 65_535 ? { value } : { problem: 'names no port from 1 to 65535' };
});

export interface Facts {
  unit?: string;
  reloads?: boolean;
  defaultText?: string;
  about: string;
  example: string;
}

export function key<T>(type: ValueType<T>, value: T, { unit = '', reloads = true, ...facts }: Facts): Key<T> {
  return { kind: 'key', type, default: value, unit, reloads, ...facts };
}
