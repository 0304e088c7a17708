-- Sets the drain flag of a node. @return 1, or 0 when there is no such node
local node = nodeOf(redis.call('HGET', KEY .. 'nodes', ARGS.name))
if not node then return { HEAD, 0 } end
node.drain = ARGS.wanted
redis.call('HSET', KEY .. 'nodes', ARGS.name, cjson.encode(node))
return { HEAD, 1 }
