-- A node is alive. `node` is what it tells of itself; the store adds the time and how far the node's clock is off.
-- @return its record; '' = another process has announced itself under this name since
local OTHER_LIVES = 3000000

markAlive()
local node = ARGS.node
local present = nodeOf(redis.call('HGET', KEY .. 'nodes', node.name))
local announced = redis.call('HGET', KEY .. 'incarnations', node.name)
if redis.call('EXISTS', replacedKey(node.name, node.incarnation)) == 1 then return { HEAD, '' } end
if announced and announced ~= node.incarnation then
  -- Which of them announced itself last is forgotten: who is heard stays.
  local isOther = present and present.incarnation == announced
  if isOther and math.abs(NOW - tonumber(present.beat)) < OTHER_LIVES then return { HEAD, '' } end
  redis.call('HSET', KEY .. 'incarnations', node.name, node.incarnation)
end
redis.call('HSET', KEY .. 'beats', node.name, beatText())
node.beat = digits(NOW)
node.offset = digits(tonumber(ARGS.clock) - NOW)
if present then node.drain = present.drain == true end
redis.call('HSET', KEY .. 'nodes', node.name, cjson.encode(node))
return { HEAD, cjson.encode(node) }
