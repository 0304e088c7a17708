-- A node has asserted all that it has. When the last one has, nobody waits any longer (CLUSTER.md C1).
if ARGS.reign ~= REIGN then stop('FORGOTTEN the server was replaced since') end
if redis.call('SREM', KEY .. 'expected', ARGS.node) == 1 and redis.call('SCARD', KEY .. 'expected') == 0 then
  redis.call('HSET', KEYS[1], 'until', '')
end
return { HEAD }
