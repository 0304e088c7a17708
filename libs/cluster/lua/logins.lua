-- Logins that are under way: `add`, `find`, `replace` (if it still has the revision), `remove`. Times are ms, the caller's.
--   login:ID             a hash: text (the record), revision, address, granted
--   logins-of:ADDRESS    pending logins of one client address (its /64 with IPv6), by the time of their last reply
--   logins, logins:granted   all of them, by the end of their time
local PENDING, GRANTED = KEY .. 'logins', KEY .. 'logins-granted'
local NOW_MILLIS = ARGS.now

local function keyOf(id)
  return KEY .. 'login:' .. id
end

local function addressKey(address)
  return KEY .. 'logins-of:' .. address
end

local function forget(id)
  local address = redis.call('HGET', keyOf(id), 'address')
  redis.call('DEL', keyOf(id))
  redis.call('ZREM', PENDING, id)
  redis.call('ZREM', GRANTED, id)
  if address then redis.call('ZREM', addressKey(address), id) end
end

-- Two hundred at a time: each added login pays for what went before it.
local function forgetOld()
  for _, key in ipairs({ PENDING, GRANTED }) do
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', NOW_MILLIS, 'LIMIT', 0, 200)) do forget(id) end
  end
end

local function forgetOldest(key)
  if redis.call('ZCARD', key) < ARGS.max then return end
  local oldest = redis.call('ZRANGE', key, 0, 0)[1]
  if oldest then forget(oldest) end
end

-- The record goes by itself a while after its time, should nobody add another one. Its indexes do too.
local function write()
  local key = keyOf(ARGS.id)
  local left = math.max(1, ARGS.expiresAt - NOW_MILLIS) + 60000
  redis.call('HSET', key, 'text', ARGS.text, 'revision', cjson.decode(ARGS.text).revision, 'address', ARGS.address,
    'expires', digits(ARGS.expiresAt), 'granted', ARGS.granted and 1 or 0)
  redis.call('PEXPIRE', key, digits(left))
  if ARGS.granted then
    redis.call('ZREM', PENDING, ARGS.id)
    redis.call('ZREM', addressKey(ARGS.address), ARGS.id)
    redis.call('ZADD', GRANTED, digits(ARGS.expiresAt), ARGS.id)
    return
  end
  redis.call('ZADD', PENDING, digits(ARGS.expiresAt), ARGS.id)
  redis.call('ZADD', addressKey(ARGS.address), digits(NOW_MILLIS), ARGS.id)
  redis.call('PEXPIRE', addressKey(ARGS.address), digits(left))
end

-- At the limit of an address the logins that rest longest yield, if they rest for long enough.
local function makeRoom()
  if ARGS.maxPerAddress == 0 then return true end
  local key = addressKey(ARGS.address)
  local excess = redis.call('ZCARD', key) + 1 - ARGS.maxPerAddress
  if excess <= 0 then return true end
  local rested = redis.call('ZRANGEBYSCORE', key, '-inf', digits(NOW_MILLIS - ARGS.restMillis), 'LIMIT', 0, excess)
  for _, id in ipairs(rested) do
    forget(id)
    redis.call('ZREM', key, id)
  end
  return #rested == excess
end

if ARGS.verb == 'add' then
  forgetOld()
  local repeated = redis.call('HGET', keyOf(ARGS.id), 'text') == ARGS.text
  if repeated then return { HEAD, 1 } end
  if not makeRoom() then return { HEAD, 0 } end
  forgetOldest(PENDING)
  write()
  return { HEAD, 1 }
end
if ARGS.verb == 'find' then
  local found = redis.call('HMGET', keyOf(ARGS.id), 'text', 'expires')
  if not found[1] or tonumber(found[2]) <= NOW_MILLIS then return { HEAD } end
  return { HEAD, found[1] }
end
if ARGS.verb == 'replace' then
  local present = redis.call('HMGET', keyOf(ARGS.id), 'revision', 'text')
  -- The same change again, because its answer got lost: it was done.
  if present[2] == ARGS.text then return { HEAD, 1 } end
  if not present[1] or tonumber(present[1]) ~= ARGS.revision then return { HEAD, 0 } end
  if ARGS.granted then forgetOldest(GRANTED) end
  write()
  return { HEAD, 1 }
end
forget(ARGS.id)
return { HEAD }
