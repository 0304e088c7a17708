import { loadScript } from '@sallyport/cluster';

/** What a primary holds, read past the scripts. */
export interface Dump {
  records: ReadonlyMap<string, StoredRecord>;
  /** Address entry and session id, of the index of taken addresses. */
  taken: readonly (readonly [entry: string, id: string])[];
  /** Node, incarnation and session id, of the index of leases. */
  held: readonly (readonly [node: string, incarnation: string, id: string])[];
  /** Entries of the index of users. */
  users: number;
  /** When the window of assertion and restore closes, µs; 0 = closed. */
  until: number;
}

/** A session's record, by the short names of lua/records.lua. */
export interface StoredRecord {
  text: string;
  state: string;
  node: string;
  incarnation: string;
  epoch: number;
  claimId: string;
  block: string;
  endedAt: number;
  endReason: string;
}

export function dumpOf(text: string): Dump {
  const value = fieldsOf(JSON.parse(text));
  const records = new Map<string, StoredRecord>();
  for (const [id, record] of Object.entries(fieldsOf(value['records'])).sort(([a], [b]) => (a < b ? -1 : 1)))
    records.set(id, recordOf(String(record)));
  return {
    records,
    taken: linesOf(value['taken']).map(([entry = '', id = '']) => [entry, id]),
    held: linesOf(value['held']).map(([node = '', incarnation = '', id = '']) => [node, incarnation, id]),
    users: Number(value['users']),
    until: Number(value['until']),
  };
}

/** Its lease is above the other one's. */
export function isAbove(
  a: Pick<StoredRecord, 'epoch' | 'claimId'>,
  b: Pick<StoredRecord, 'epoch' | 'claimId'>,
): boolean {
  return a.epoch === b.epoch ? a.claimId > b.claimId : a.epoch > b.epoch;
}

function recordOf(text: string): StoredRecord {
  const fields = fieldsOf(JSON.parse(text));
  const get = (name: string) => {
    const value = fields[name];
    return typeof value === 'string' ? value : '';
  };
  return {
    text: get('raw'),
    state: get('st'),
    node: get('ln'),
    incarnation: get('li'),
    epoch: Number(get('le')),
    claimId: get('lc'),
    block: get('b4'),
    endedAt: Number(get('en')),
    endReason: get('er'),
  };
}

export function fieldsOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? Object.fromEntries(Object.entries(value)) : {};
}

function linesOf(text: unknown): string[][] {
  return String(text)
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split(' '));
}

/** How records.lua reads a record. */
function codec(): string {
  const { source } = loadScript('find', ['records']);
  const [from, to] = [source.indexOf('local FAMILIES'), source.indexOf('local function load(')];
  if (from < 0 || to < from) throw new Error('records.lua does not say any more how a record is read');
  return source.slice(from, to);
}

/** ARGV[1] = what all keys begin with. */
export const DUMP = `
local P = ARGV[1]
local function digits(number)
  return string.format('%.0f', number)
end
${codec()}
local records, taken, held = {}, {}, {}
for _, key in ipairs(redis.call('KEYS', P .. 's:*')) do
  local text = redis.call('GET', key)
  local record = unpacked(text)
  record.raw = hex(text)
  records[string.sub(key, #P + 3)] = cjson.encode(record)
end
for _, member in ipairs(redis.call('ZRANGE', P .. 'taken4', 0, -1)) do
  taken[#taken + 1] = string.sub(member, 1, -17) .. ' ' .. hex(string.sub(member, -16))
end
for _, key in ipairs(redis.call('KEYS', P .. 'node:*')) do
  for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    held[#held + 1] = string.sub(key, #P + 6) .. ' ' .. string.sub(member, 1, -18) .. ' ' .. hex(string.sub(member, -16))
  end
end
local meta = redis.call('HMGET', P .. 'meta', 'until', 'restoring')
local closes = math.max(tonumber(meta[1] or '') or 0, tonumber(meta[2] or '') or 0)
return cjson.encode({ records = records, taken = table.concat(taken, '\\n'), held = table.concat(held, '\\n'),
  users = redis.call('ZCARD', P .. 'users'), ['until'] = digits(closes) })`;
