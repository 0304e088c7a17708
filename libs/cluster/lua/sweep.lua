-- Ends what has outlived its time and forgets old tombstones, at most `limit` of each.
-- Parks what nodes hold that have been silent for long: their machines may never come back.
-- @return how many ended, whether there may be more, and 'halted' when the clocks cannot be trusted
local TOMBSTONES_LIMIT = 1000000
local CLOCK_TOLERANCE = 5000000
local FRESH = 5000000
-- SILENT_MICROS of nodes.ts.
local SILENT = 60000000

markAlive()
if isAsserting() then return { HEAD, 0, 0, 'asserting' } end

-- CLUSTER.md C13: a jump of the store's clock must not end everybody.
local offsets = {}
for _, text in ipairs(redis.call('HVALS', KEY .. 'nodes')) do
  local node = nodeOf(text)
  if node and math.abs(NOW - tonumber(node.beat)) < FRESH then offsets[#offsets + 1] = tonumber(node.offset) end
end
table.sort(offsets)
local median = offsets[math.ceil(#offsets / 2)]
if median and math.abs(median) > CLOCK_TOLERANCE then return { HEAD, 0, 0, 'halted' } end

-- The lease fences a node off that comes back all the same: its mail tells it, and its claims are answered as ever. One
-- that could not reach the store because that was away, or is another one since, has the whole time again.
local function parkSilent(left)
  local beats = redis.call('HGETALL', KEY .. 'beats')
  for i = 1, #beats, 2 do
    local name, at, rest = beats[i], string.match(beats[i + 1], '^(%d+) (.*)$')
    local age = NOW - tonumber(at or '0')
    if not at or age < 0 or rest ~= lifeOf() then
      redis.call('HSET', KEY .. 'beats', name, beatText())
    elseif age > SILENT then
      local members = redis.call('ZRANGEBYLEX', nodeKey(name), '-', '+', 'LIMIT', 0, left)
      for _, member in ipairs(members) do
        local id = idOfMember(member)
        local record = load(id)
        if record then
          toParked(id, record, 'connection-lost')
          tell(record.ln, record.li, id, number(record, 'le'), 'superseded')
        else
          redis.call('ZREM', nodeKey(name), member)
        end
      end
      left = left - #members
      if left == 0 then return true end
      redis.call('HDEL', KEY .. 'beats', name)
    end
  end
  return false
end

local more = parkSilent(ARGS.limit)
local ended = 0
local due = redis.call('ZRANGEBYSCORE', KEY .. 'due', '-inf', digits(NOW), 'LIMIT', 0, ARGS.limit)
for _, member in ipairs(due) do
  local id = hex(member)
  local record = load(id)
  if record then
    record = returned(id, record)
    local at, reason = lifetimeEnd(record, planOf(record))
    if at and at <= NOW then
      toEnded(id, record, reason)
      ended = ended + 1
    end
  else
    redis.call('ZREM', KEY .. 'due', member)
  end
end
local old = redis.call('ZRANGEBYSCORE', KEY .. 'tombstones', '-inf', digits(NOW), 'LIMIT', 0, ARGS.limit)
local excess = math.min(ARGS.limit, redis.call('ZCARD', KEY .. 'tombstones') - TOMBSTONES_LIMIT)
if #old == 0 and excess > 0 then old = redis.call('ZRANGE', KEY .. 'tombstones', 0, excess - 1) end
for _, member in ipairs(old) do
  local id = hex(member)
  local record = load(id)
  if record then
    transition(id, record, nil)
  else
    redis.call('ZREM', KEY .. 'tombstones', member)
    redis.call('DEL', KEY .. 's:' .. id)
  end
end
return { HEAD, ended, (more or #due == ARGS.limit or #old == ARGS.limit) and 1 or 0, '' }
