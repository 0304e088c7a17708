-- A node is alive. `node` is what it tells of itself; the store adds the time and how far the node's clock is off.
markAlive()
local node = ARGS.node
redis.call('HSET', KEY .. 'beats', node.name, beatText())
node.beat = digits(NOW)
node.offset = digits(tonumber(ARGS.clock) - NOW)
local present = nodeOf(redis.call('HGET', KEY .. 'nodes', node.name))
if present then node.drain = present.drain == true end
redis.call('HSET', KEY .. 'nodes', node.name, cjson.encode(node))
return { HEAD, cjson.encode(node) }
