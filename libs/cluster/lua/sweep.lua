-- Ends what has outlived its time and forgets old tombstones, at most `limit` of each.
-- @return how many ended, whether there may be more, and 'halted' when the clocks cannot be trusted
local TOMBSTONES_LIMIT = 1000000
local CLOCK_TOLERANCE = 5000000
local FRESH = 5000000

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
return { HEAD, ended, (#due == ARGS.limit or #old == ARGS.limit) and 1 or 0, '' }
