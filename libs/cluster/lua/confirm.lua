-- The last write before a WAIT: what a replica has then, it has all that was written before.
if ARGS.reign ~= REIGN then stop('FORGOTTEN the server was replaced since') end
redis.call('HSET', KEYS[1], 'confirm', digits(NOW))
return { HEAD }
