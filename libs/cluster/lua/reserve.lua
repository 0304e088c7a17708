-- Keeps a list of fixed addresses under its tag, for claims. It goes when no claim has named it for a day.
local key = KEY .. 'reserved:' .. ARGS.tag
for _, member in ipairs(ARGS.members) do redis.call('ZADD', key, 0, member) end
redis.call('EXPIRE', key, 86400)
return { HEAD }
