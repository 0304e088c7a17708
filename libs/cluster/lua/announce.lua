-- A new incarnation of a node: parks what older ones still hold, at most `limit` at a time (CLUSTER.md C4).
-- One that wakes later finds a living one of its name, or is the only one.
local REPLACED_SECONDS = 86400

markAlive()
local key = nodeKey(ARGS.node)
local before = redis.call('ZRANGEBYLEX', key, '-', '(' .. ARGS.incarnation .. '\0', 'LIMIT', 0, ARGS.limit)
local after = redis.call('ZRANGEBYLEX', key, '(' .. ARGS.incarnation .. '\1', '+', 'LIMIT', 0, ARGS.limit - #before)
for _, members in ipairs({ before, after }) do
  for _, member in ipairs(members) do
    local id = idOfMember(member)
    local record = load(id)
    if record then toParked(id, record, 'node-restarted') else redis.call('ZREM', key, member) end
  end
end
local older = redis.call('HGET', KEY .. 'incarnations', ARGS.node)
if older and older ~= ARGS.incarnation then
  redis.call('DEL', mailKey(ARGS.node, older))
  redis.call('SET', replacedKey(ARGS.node, older), 1, 'EX', REPLACED_SECONDS)
end
redis.call('HSET', KEY .. 'incarnations', ARGS.node, ARGS.incarnation)
local parked = #before + #after
return { HEAD, parked, parked == ARGS.limit and 1 or 0 }
