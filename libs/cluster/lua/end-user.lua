-- Ends sessions of a user, at most `limit` at a time.
-- @return how many, whether there are more, and whether some may be forgotten still: nodes assert
markAlive()
local from, to = userRange(ARGS.user)
local members = redis.call('ZRANGEBYLEX', KEY .. 'users', from, to, 'LIMIT', 0, ARGS.limit)
for _, member in ipairs(members) do
  local id = idOfMember(member)
  toEnded(id, load(id), ARGS.reason)
end
return { HEAD, #members, #members == ARGS.limit and 1 or 0, isAsserting() and 1 or 0 }
