-- The time, and all nodes; those that were not heard of for `forget` µs go, and what is no node.
local reply = { HEAD, digits(NOW) }
local all = redis.call('HGETALL', KEY .. 'nodes')
for i = 2, #all, 2 do
  local node = nodeOf(all[i])
  if not node or NOW - tonumber(node.beat) > tonumber(ARGS.forget) then
    redis.call('HDEL', KEY .. 'nodes', all[i - 1])
  else
    reply[#reply + 1] = all[i]
  end
end
return reply
