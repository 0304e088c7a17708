-- A page of the ids of sessions that are not closed, whole users at a time: one that changes its state meanwhile is not
-- missed. `prefix`: only those whose id begins so.
local bytes = math.ceil(#ARGS.prefix / 2)
local from = ARGS.from == '' and '-' or '(' .. bin(ARGS.from)
local members = redis.call('ZRANGEBYLEX', KEY .. 'users', from, '+', 'LIMIT', 0, ARGS.limit)
local last = members[#members]
if #members == ARGS.limit then
  local user = string.match(last, '^[^%z]*')
  for _, member in ipairs(redis.call('ZRANGEBYLEX', KEY .. 'users', '(' .. last, '(' .. user .. '\1')) do
    members[#members + 1] = member
  end
  last = members[#members]
else
  last = nil
end
local reply = { HEAD, last and hex(last) or '' }
for _, member in ipairs(members) do
  local first = bytes == 0 and '' or string.sub(hex(string.sub(member, -16, -17 + bytes)), 1, #ARGS.prefix)
  if first == ARGS.prefix then reply[#reply + 1] = idOfMember(member) end
end
return reply
