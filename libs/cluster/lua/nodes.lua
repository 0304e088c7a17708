-- All nodes that were heard of within `seconds`; older records go. Sets the drain flag of one where `drain` is given.
local gone = tonumber(ARGS.forget)
if ARGS.drain then
  local text = redis.call('HGET', KEY .. 'nodes', ARGS.name)
  if not text then return { HEAD, digits(NOW) } end
  local node = cjson.decode(text)
  node.drain = ARGS.drain
  redis.call('HSET', KEY .. 'nodes', ARGS.name, cjson.encode(node))
end
local reply = { HEAD, digits(NOW) }
local all = redis.call('HGETALL', KEY .. 'nodes')
for i = 2, #all, 2 do
  local node = cjson.decode(all[i])
  if NOW - tonumber(node.beat) > gone then
    redis.call('HDEL', KEY .. 'nodes', all[i - 1])
  else
    reply[#reply + 1] = all[i]
  end
end
return reply
