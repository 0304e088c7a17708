-- What operators changed of the users (account-records.ts has the rules).
--   accounts       by name a record, JSON: v, at, op of the change; del; g groups with commas (he was added: users-file does
--                  not count for him); lk locked; h hash; ha when it was set
--   accounts-log   names by the number of their last change; meta.accounts counts
-- `verb`: `read`, `assert`, or a change: `add`, `passwd`, `lock`, `unlock`, `delete`
local RECORDS, LOG = KEY .. 'accounts', KEY .. 'accounts-log'

local function stored(name)
  local text = redis.call('HGET', RECORDS, name)
  if not text then return nil end
  local record = cjson.decode(text)
  if record.v > VERSION then stop('NEWER account record of version ' .. record.v) end
  return record
end

local function store(name, record)
  redis.call('HSET', RECORDS, name, cjson.encode(record))
  redis.call('ZADD', LOG, redis.call('HINCRBY', KEYS[1], 'accounts', 1), name)
end

-- REIGN, the number of the last change given, then name and record of each since `since`. Who knows another reign, or more
-- changes than there were, gets the number -1 and nothing: he asserts what he knows and reads all of it.
if ARGS.verb == 'read' then
  local changes = tonumber(redis.call('HGET', KEYS[1], 'accounts') or '0')
  if ARGS.reign ~= REIGN or ARGS.since > changes then return { HEAD, REIGN, -1 } end
  local found = redis.call('ZRANGE', LOG, '(' .. ARGS.since, '+inf', 'BYSCORE', 'LIMIT', 0, ARGS.limit, 'WITHSCORES')
  local reply = { HEAD, REIGN, #found > 0 and tonumber(found[#found]) or ARGS.since }
  for i = 1, #found, 2 do
    reply[#reply + 1] = found[i]
    reply[#reply + 1] = redis.call('HGET', RECORDS, found[i])
  end
  return reply
end

-- A copy that a replica has kept is stored where Redis has an older one, or none (CLUSTER.md C1).
if ARGS.verb == 'assert' then
  for _, copy in ipairs(ARGS.records) do
    local record, present = cjson.decode(copy.text), stored(copy.name)
    if not present or tonumber(present.at) < tonumber(record.at) then store(copy.name, record) end
  end
  return { HEAD }
end

local before = stored(ARGS.name)
if before and before.op == ARGS.op then return { HEAD, 'done' } end
local present = ARGS.inFile
if before then present = not before.del and (before.g ~= nil or ARGS.inFile) end
if ARGS.verb == 'add' and present then return { HEAD, 'exists' } end
if ARGS.verb ~= 'add' and not present then return { HEAD, 'unknown' } end

local after = {}
if before and ARGS.verb ~= 'add' and ARGS.verb ~= 'delete' then after = before end
after.v, after.op = VERSION, ARGS.op
after.at = digits(math.max(NOW, before and tonumber(before.at) + 1 or 0))
if ARGS.verb == 'add' then after.g = ARGS.groups end
if ARGS.verb == 'add' or ARGS.verb == 'passwd' then after.h, after.ha = ARGS.hash, after.at end
if ARGS.verb == 'lock' or ARGS.verb == 'unlock' then after.lk = ARGS.verb == 'lock' end
if ARGS.verb == 'delete' then after.del = true end
store(ARGS.name, after)
append('', 'admin.changed', '{"v":1,"at":"' .. after.at .. '","type":"admin.changed","verb":"user-' .. ARGS.verb
  .. '","subject":' .. cjson.encode(ARGS.name) .. '}')
return { HEAD, 'done' }
