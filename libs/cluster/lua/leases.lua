-- A page of the ids of sessions whose lease an incarnation of a node has; `from`: the last one of the page before.
if isAsserting() then stop('WAITING nodes still assert their sessions') end
local own = ARGS.incarnation .. '\0'
local from = ARGS.from == '' and '[' .. own or '(' .. own .. bin(ARGS.from)
local members = redis.call('ZRANGEBYLEX', nodeKey(ARGS.node), from, '(' .. ARGS.incarnation .. '\1', 'LIMIT', 0, ARGS.limit)
local reply = { HEAD }
for i, member in ipairs(members) do reply[i + 1] = idOfMember(member) end
return reply
