-- A node stops on purpose: forgotten, if it is still this incarnation.
local text = redis.call('HGET', KEY .. 'nodes', ARGS.name)
if text and cjson.decode(text).incarnation == ARGS.incarnation then redis.call('HDEL', KEY .. 'nodes', ARGS.name) end
return { HEAD }
