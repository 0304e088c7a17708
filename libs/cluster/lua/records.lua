-- Session records and what follows from them. Scripts and their callers know a record by short names, as texts; '' and
-- '0' are left out. How it is stored: `packed`.
--   v version       t token hash   u user      p profile   g key of its grant
--   ca cu cp ch     client: address, user agent, platform, host name
--   st state        a authed, u up, p parked, c closed
--   ln li le lc     lease: node, incarnation, epoch, claim id
--   b4 b6           addresses: their blocks (addresses.lua); a4 a6 as text, if fixed
--   k STRAP keys, separated by spaces      m MTU
--   c up pk ac en   created, up, parked, active, ended      er reason of the end
--   rx tx rt tt     bytes of the session, of the tunnel     n number of events
--   aw              AWAY when it was parked                 op id of the last change
-- A session's id is made of the hash of its token, so that no index leads from one to the other.
-- Indexes, changed only by `transition`: users, node:NAME, due, tombstones, parked:LIST, parked-lists, meta.a, .u, .p

local FAMILIES = { '4', '6' }
-- EPOCH_LEAD_MICROS of session.ts. Above it a double has no next one soon: epochs would not rise any more.
local EPOCH_LEAD = 86400000000

local BINS = {}
-- Remembers: one script asks for the same id many times.
local function bin(hex)
  local known = BINS[hex]
  if known then return known end
  local bytes = {}
  for i = 1, #hex, 2 do bytes[#bytes + 1] = tonumber(string.sub(hex, i, i + 1), 16) end
  known = string.char(unpack(bytes))
  BINS[hex] = known
  return known
end

local function hex(bytes)
  return string.format(string.rep('%02x', #bytes), string.byte(bytes, 1, -1))
end

local function number(record, name)
  return tonumber(record[name] or '0')
end

local function put(record, name, value)
  if value == '' or value == '0' then value = nil end
  record[name] = value
end

-- The stored form: MessagePack values in this order, '' for what is not there, none after the last one that is. Half the
-- size of JSON, and faster. New fields go to the end.
local STORED = {
  'v', 'n', 'st', 'c', 't', 'u', 'p', 'g', 'ca', 'cu', 'cp', 'ch', 'k', 'ln', 'li', 'le', 'lc', 'b4', 'b6', 'm', 'up', 'ac',
  'pk', 'rx', 'tx', 'rt', 'tt', 'aw', 'op', 'a4', 'a6', 'en', 'er',
}
local IS_HEX = { t = true, b4 = true, b6 = true }
local IS_NUMBER = { c = true, le = true, m = true, pk = true, rx = true, tx = true, rt = true, tt = true, aw = true, en = true }
-- Times that are near the epoch, mostly the same: the distance from it.
local IS_NEAR = { up = true, ac = true }

local function packed(record)
  local values, last, epoch = {}, 0, number(record, 'le')
  for i, name in ipairs(STORED) do
    local value = record[name]
    if value == nil then
      value = ''
    else
      last = i
      if IS_HEX[name] then
        value = bin(value)
      elseif IS_NUMBER[name] then
        value = tonumber(value)
      elseif IS_NEAR[name] then
        value = tonumber(value) - epoch
      end
    end
    values[i] = value
  end
  return cmsgpack.pack(unpack(values, 1, last))
end

local function unpacked(text)
  -- JSON, as records were stored before.
  if string.sub(text, 1, 1) == '{' then return cjson.decode(text) end
  local record, values = {}, { cmsgpack.unpack(text) }
  for i, name in ipairs(STORED) do
    local value = values[i]
    if value ~= nil and value ~= '' then
      if IS_HEX[name] then
        value = hex(value)
      elseif IS_NUMBER[name] then
        value = digits(value)
      elseif IS_NEAR[name] then
        value = digits(value + number(record, 'le'))
      end
      record[name] = value
    end
  end
  return record
end

local STATES = { a = true, u = true, p = true, c = true }

-- What a record of any release has.
local function isRecord(value)
  if type(value) ~= 'table' or type(value.v) ~= 'number' or type(value.n) ~= 'number' then return false end
  for _, name in ipairs({ 't', 'u', 'p', 'g', 'st' }) do
    if type(value[name]) ~= 'string' then return false end
  end
  return true
end

local PLANS = {}
-- nil = there is none, or what no script of ours wrote.
local function loadPlan(key)
  local known = PLANS[key]
  if known ~= nil then return known or nil end
  local text = redis.call('HGET', KEY .. 'g:' .. key, 'x')
  local read, plan = pcall(cjson.decode, text or '')
  if not read or type(plan) ~= 'table' or type(plan.v) ~= 'number' then
    PLANS[key] = false
    return nil
  end
  if plan.v > VERSION then stop('NEWER grant of version ' .. plan.v) end
  PLANS[key] = plan
  return plan
end

-- What scripts need of a grant: lifetimes, limits, pools. A loaded record has one.
local function planOf(record)
  return loadPlan(record.g) or stop('FAULT a session has no grant')
end

-- nil = there is none, or what no script of ours wrote, or its grant is not there: that is nobody's right, and it must not stop
-- the others.
local function load(id)
  local text = redis.call('GET', KEY .. 's:' .. id)
  if not text then return nil end
  local read, record = pcall(unpacked, text)
  if not read or not isRecord(record) then return nil end
  if record.v > VERSION then stop('NEWER session record of version ' .. record.v) end
  return STATES[record.st] and loadPlan(record.g) and record or nil
end

local function save(id, record)
  redis.call('SET', KEY .. 's:' .. id, packed(record))
end

-- The session of ARGS.id; where a token is given, only if it is that one's.
local function loadAsked()
  local record = load(ARGS.id)
  if record and ARGS.t and record.t ~= ARGS.t then return nil end
  return record
end

local function copy(record)
  local result = {}
  for name, value in pairs(record) do result[name] = value end
  return result
end

-- When a session that nobody touches ends, and why; nil = never.
local function lifetimeEnd(record, plan)
  local at, reason
  if record.st == 'a' and plan.cookie > 0 then
    at, reason = number(record, 'c') + plan.cookie, 'cookie-timeout'
  elseif record.st == 'p' and plan.disconnected > 0 then
    at, reason = number(record, 'pk') + plan.disconnected, 'disconnected-timeout'
  end
  if plan.session > 0 then
    local absolute = number(record, 'c') + plan.session
    if not at or absolute <= at then at, reason = absolute, 'session-timeout' end
  end
  return at, reason
end

-- When it was parked, without the time that the store was away before that: orders parked sessions, whether `returned`
-- has seen them or not.
local function parkedSince(record)
  return number(record, 'pk') - number(record, 'aw')
end

-- A user's sessions: 'A' authed and 'P' parked, that wait longest first, 'U' up, oldest first. 'P' has the blocks, too.
local function userMember(id, record)
  local kind, since, blocks = string.upper(record.st), number(record, 'c'), ''
  if record.st == 'p' then since, blocks = parkedSince(record), (record.b4 or '') .. ',' .. (record.b6 or '') end
  return record.u .. '\0' .. kind .. string.format('%016.0f', since) .. blocks .. bin(id)
end

local function idOfMember(member)
  return hex(string.sub(member, -16))
end

-- `kind` as in userMember.
local function kindRange(user, kind)
  local head = user .. '\0'
  return '[' .. head .. kind, '(' .. head .. string.char(string.byte(kind) + 1)
end

-- What userMember has put in: since when, and the blocks.
local function partsOfMember(user, member)
  local from = #user + 3
  local b4, b6 = string.match(string.sub(member, from + 16, -17), '^(%x*),(%x*)$')
  return tonumber(string.sub(member, from, from + 15)), { ['4'] = b4, ['6'] = b6 }
end

local function userRange(user)
  return '[' .. user .. '\0', '(' .. user .. '\1'
end

local function nodeKey(name)
  return KEY .. 'node:' .. name
end

local function within(pool, block)
  return block >= pool.first and block <= pool.last
end

-- The list of parked sessions that a parked one is in: FAMILY LENGTH CIDR, the pool of its grant that its address is
-- from; '-' where it is a fixed one. @return name, entry and the pool; nil = not parked, or no address
local function parkedList(id, record, family)
  local entry = record and record.st == 'p' and record['b' .. family]
  if not entry then return nil end
  local name, block = family .. string.sub(entry, -2), string.sub(entry, 1, -3)
  if not record['a' .. family] then
    for _, pool in ipairs(planOf(record)[family].pools) do
      if within(pool, block) then return name .. pool.cidr, entry .. bin(id), pool end
    end
  end
  return name .. '-', entry .. bin(id), nil
end

local function moveParked(id, before, after)
  for _, family in ipairs(FAMILIES) do
    local was, left = parkedList(id, before, family)
    local is, member, pool = parkedList(id, after, family)
    if was and was ~= is then
      redis.call('ZREM', KEY .. 'parked:' .. was, left)
      if redis.call('EXISTS', KEY .. 'parked:' .. was) == 0 then redis.call('HDEL', KEY .. 'parked-lists', was) end
    end
    if is and is ~= was then
      redis.call('ZADD', KEY .. 'parked:' .. is, digits(parkedSince(after)), member)
      redis.call('HSET', KEY .. 'parked-lists', is, pool and pool.first .. ' ' .. pool.last or '')
    end
  end
end

-- Which entry of which index a record has.
local function entriesOf(id, record)
  if not record then return {} end
  local plan = planOf(record)
  if record.st == 'c' then return { tombstone = number(record, 'en') + plan.tombstone } end
  local entries = { user = userMember(id, record), due = lifetimeEnd(record, plan) }
  if record.st == 'u' then
    entries.node = nodeKey(record.ln)
    entries.lease = record.li .. '\0' .. bin(id)
  end
  return entries
end

local function moveMember(key, before, after)
  if before == after then return end
  if before then redis.call('ZREM', key, before) end
  if after then redis.call('ZADD', key, 0, after) end
end

local function moveScore(key, member, before, after)
  if before == after then return end
  if after then
    redis.call('ZADD', key, digits(after), member)
  else
    redis.call('ZREM', key, member)
  end
end

-- Writes a record and its indexes. `before` is what is stored now; nil after = forgotten.
local function transition(id, before, after)
  local key = KEY .. 's:' .. id
  local old, new = entriesOf(id, before), entriesOf(id, after)
  moveMember(KEY .. 'users', old.user, new.user)
  moveScore(KEY .. 'due', bin(id), old.due, new.due)
  moveScore(KEY .. 'tombstones', bin(id), old.tombstone, new.tombstone)
  if old.node ~= new.node or old.lease ~= new.lease then
    if old.node then redis.call('ZREM', old.node, old.lease) end
    if new.node then redis.call('ZADD', new.node, 0, new.lease) end
  end
  moveParked(id, before, after)
  local was, is = before and before.st, after and after.st
  if was ~= is then
    if was and was ~= 'c' then redis.call('HINCRBY', KEYS[1], was, -1) end
    if is and is ~= 'c' then redis.call('HINCRBY', KEYS[1], is, 1) end
  end
  if after then
    save(id, after)
    if not before then redis.call('HINCRBY', KEY .. 'g:' .. after.g, 'r', 1) end
    return
  end
  redis.call('DEL', key, KEY .. 'k:' .. id)
  if redis.call('HINCRBY', KEY .. 'g:' .. before.g, 'r', -1) <= 0 then
    redis.call('DEL', KEY .. 'g:' .. before.g)
    redis.call('SREM', KEY .. 'grants', before.g)
  end
end

-- Appends one entry to the event stream, in the same step as what it tells of.
local function append(id, kind, text)
  local limit = tonumber(HEADER.events)
  if limit > 0 then
    redis.call('XADD', KEY .. 'events', 'MAXLEN', '~', limit, '*', 'k', id, 't', kind, 'd', text)
  else
    redis.call('XADD', KEY .. 'events', '*', 'k', id, 't', kind, 'd', text)
  end
end

local function emit(id, record, kind, at, rest)
  local head = '{"v":1,"type":"' .. kind .. '","sessionId":"' .. id .. '","epoch":"' .. digits(number(record, 'le'))
    .. '","n":' .. digits(record.n) .. ',"at":"' .. digits(at) .. '",'
  append(id, kind, head .. rest .. '}')
end

local function usageText(record)
  return '"activeAt":"' .. digits(number(record, 'ac')) .. '","rxBytes":"' .. digits(number(record, 'rx'))
    .. '","txBytes":"' .. digits(number(record, 'tx')) .. '"'
end

-- The mail of one incarnation of a node: which of its tunnels it lost. It goes when nobody reads it for an hour.
local function mailKey(name, incarnation)
  return KEY .. 'mail:' .. name .. ':' .. incarnation
end

local MAIL_LIMIT = 65536
local MAIL_SECONDS = 3600

local function tell(name, incarnation, id, epoch, reason)
  local key = mailKey(name, incarnation)
  local count = redis.call('HINCRBY', KEYS[1], 'mail', 1)
  redis.call('RPUSH', key, count .. ' ' .. id .. ' ' .. digits(epoch) .. ' ' .. reason)
  redis.call('LTRIM', key, -MAIL_LIMIT, -1)
  redis.call('EXPIRE', key, MAIL_SECONDS)
end

-- Payload of one tunnel to totals of the session: never back, activity never in the future.
local function count(record, usage)
  local rx, tx = tonumber(usage.rx), tonumber(usage.tx)
  local moreRx = math.max(0, rx - number(record, 'rt'))
  local moreTx = math.max(0, tx - number(record, 'tt'))
  put(record, 'rx', digits(number(record, 'rx') + moreRx))
  put(record, 'tx', digits(number(record, 'tx') + moreTx))
  put(record, 'rt', digits(number(record, 'rt') + moreRx))
  put(record, 'tt', digits(number(record, 'tt') + moreTx))
  put(record, 'ac', digits(math.max(number(record, 'ac'), math.min(tonumber(usage.at), NOW))))
end

local function holdsLease(record, lease)
  return record.le == lease.e and record.lc == lease.c
end

-- Takes the time that the store was away out of a parked session's age, with the event that says so.
local function returned(id, record)
  if record.st ~= 'p' then return record end
  local away = AWAY - number(record, 'aw')
  if away <= 0 then return record end
  local after = copy(record)
  after.pk = digits(number(record, 'pk') + away)
  after.ac = digits(number(record, 'ac') + away)
  after.n = record.n + 1
  put(after, 'aw', digits(AWAY))
  transition(id, record, after)
  emit(id, after, 'parked', number(after, 'pk'), '"reason":"node-restarted",' .. usageText(after))
  return after
end

local function toParked(id, record, reason, usage)
  local after = copy(record)
  if usage then count(after, usage) end
  after.st, after.pk, after.n = 'p', digits(NOW), record.n + 1
  put(after, 'aw', digits(AWAY))
  after.op = ARGS.op
  transition(id, record, after)
  emit(id, after, 'parked', NOW, '"reason":"' .. reason .. '",' .. usageText(after))
  return after
end
