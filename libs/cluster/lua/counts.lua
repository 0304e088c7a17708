-- How many sessions are in each state.
local counts = redis.call('HMGET', KEYS[1], 'a', 'u', 'p')
return { HEAD, counts[1] or '0', counts[2] or '0', counts[3] or '0' }
