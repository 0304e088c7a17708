-- A node is alive. `node` is its record; the store adds the time and how far the node's clock is off.
-- @return reign, and the records of all nodes
markAlive()
local node = ARGS.node
node.beat = digits(NOW)
node.offset = digits(tonumber(ARGS.clock) - NOW)
local present = redis.call('HGET', KEY .. 'nodes', node.name)
node.drain = present and cjson.decode(present).drain or node.drain
redis.call('HSET', KEY .. 'nodes', node.name, cjson.encode(node))
return { HEAD, cjson.encode(node) }
