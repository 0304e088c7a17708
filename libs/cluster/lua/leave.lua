-- A node stops on purpose: forgotten, if it is still this incarnation.
local node = nodeOf(redis.call('HGET', KEY .. 'nodes', ARGS.name))
if node and node.incarnation == ARGS.incarnation then redis.call('HDEL', KEY .. 'nodes', ARGS.name) end
return { HEAD }
