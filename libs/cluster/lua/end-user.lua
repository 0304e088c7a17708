-- Ends sessions of a user that were made until `upTo` ('' = all), looking at `limit` of them at a time.
-- @return how many ended, where to go on: hex; '' = that was the last, and whether some may be forgotten still: nodes assert
markAlive()
local first, last = userRange(ARGS.user)
if ARGS.from ~= '' then first = '(' .. bin(ARGS.from) end
local members = redis.call('ZRANGEBYLEX', KEY .. 'users', first, last, 'LIMIT', 0, ARGS.limit)
local ended = 0
for _, member in ipairs(members) do
  local id = idOfMember(member)
  local record = load(id)
  if record and (ARGS.upTo == '' or number(record, 'c') <= tonumber(ARGS.upTo)) then
    toEnded(id, record, ARGS.reason)
    ended = ended + 1
  end
end
return { HEAD, ended, #members == ARGS.limit and hex(members[#members]) or '', isAsserting() and 1 or 0 }
