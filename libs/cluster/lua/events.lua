-- The reader's side of the event stream (event-stream.ts); `how` says what.
local STREAM, GAP, HOLD = KEY .. 'events', KEY .. 'events:gap', KEY .. 'events:hold-stats'
local LEASE = KEY .. 'outbox:lease'

local function holds()
  return redis.call('GET', LEASE) == ARGS.holder
end

-- Removes up to and including `id`.
local function trim(id)
  local millis, sequence = string.match(id, '^(%d+)-(%d+)$')
  redis.call('XTRIM', STREAM, 'MINID', '=', millis .. '-' .. digits(tonumber(sequence) + 1))
end

local ACTIONS = {}

function ACTIONS.lease()
  local holder = redis.call('GET', LEASE)
  if holder and holder ~= ARGS.holder then return { HEAD, 0 } end
  redis.call('SET', LEASE, ARGS.holder, 'PX', ARGS.millis)
  return { HEAD, 1 }
end

function ACTIONS.unlease()
  if holds() then redis.call('DEL', LEASE) end
  return { HEAD }
end

-- REIGN, count from to at of the gap, whether the topics are those of this reign (restore.lua), then id k t d of each entry.
function ACTIONS.read()
  local gap = redis.call('HMGET', GAP, 'count', 'from', 'to', 'at')
  local reply = { HEAD, REIGN, tonumber(gap[1] or 0), gap[2] or '', gap[3] or '', gap[4] or '',
    redis.call('HGET', KEYS[1], 'restored') == REIGN and 1 or 0 }
  for _, entry in ipairs(redis.call('XRANGE', STREAM, '-', '+', 'COUNT', ARGS.limit)) do
    local fields = {}
    for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
    reply[#reply + 1] = entry[1]
    reply[#reply + 1] = fields.k or ''
    reply[#reply + 1] = fields.t or ''
    reply[#reply + 1] = fields.d or ''
  end
  return reply
end

function ACTIONS.trim()
  if not holds() or ARGS.reign ~= REIGN then return { HEAD, 0 } end
  trim(ARGS.upTo)
  return { HEAD, 1 }
end

function ACTIONS.size()
  local oldest = redis.call('XRANGE', STREAM, '-', '+', 'COUNT', 1)[1]
  local lag = oldest and math.max(0, math.floor(NOW / 1000) - tonumber(string.match(oldest[1], '^%d+'))) or 0
  return { HEAD, redis.call('XLEN', STREAM), redis.call('MEMORY', 'USAGE', STREAM) or 0, lag,
    redis.call('EXISTS', HOLD) }
end

function ACTIONS.hold()
  if ARGS.hold then redis.call('SET', HOLD, digits(NOW)) else redis.call('DEL', HOLD) end
  return { HEAD }
end

function ACTIONS.drop()
  local entries = redis.call('XRANGE', STREAM, '-', '+', 'COUNT', ARGS.limit)
  if #entries == 0 then return { HEAD, 0 } end
  local last = entries[#entries][1]
  redis.call('HINCRBY', GAP, 'count', #entries)
  redis.call('HSETNX', GAP, 'from', entries[1][1])
  redis.call('HSET', GAP, 'to', last, 'at', digits(NOW))
  trim(last)
  return { HEAD, #entries }
end

function ACTIONS.clear()
  local gap = redis.call('HMGET', GAP, 'count', 'to')
  if not holds() or tonumber(gap[1] or 0) ~= ARGS.count or gap[2] ~= ARGS.to then return { HEAD, 0 } end
  redis.call('DEL', GAP)
  return { HEAD, 1 }
end

return ACTIONS[ARGS.how]()
