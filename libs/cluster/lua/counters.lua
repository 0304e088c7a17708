-- Counts of a span of time that begins with the first: `add`, `read`, `clear`. A key goes by itself after its span.
local key = KEY .. 'count:' .. ARGS.kind .. ':' .. ARGS.key
if ARGS.verb == 'clear' then
  redis.call('DEL', key)
  return { HEAD, 0 }
end
local present = redis.call('HMGET', key, 'count', 'until', 'op')
local count = tonumber(present[1] or '0')
if present[2] and tonumber(present[2]) <= NOW then count = 0 end
if ARGS.verb == 'read' then return { HEAD, count } end
-- The same call again, because its answer got lost.
if count > 0 and present[3] == ARGS.op then return { HEAD, count } end
local ends = count == 0 and NOW + tonumber(ARGS.span) or tonumber(present[2])
redis.call('HSET', key, 'count', count + 1, 'until', digits(ends), 'op', ARGS.op)
redis.call('PEXPIRE', key, digits(math.ceil((ends - NOW) / 1000) + 1000))
return { HEAD, count + 1 }
