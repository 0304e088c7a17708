-- What a node must be told, oldest first. `taken` is the last entry that it has dealt with: that one and those before go.
local key = mailKey(ARGS.node, ARGS.incarnation)
if ARGS.taken ~= '' then
  local at = redis.call('LPOS', key, ARGS.taken, 'MAXLEN', ARGS.limit)
  if at then redis.call('LTRIM', key, at + 1, -1) end
end
return { HEAD, unpack(redis.call('LRANGE', key, 0, ARGS.limit - 1)) }
