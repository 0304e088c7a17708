-- How many blocks of each pool are taken; one text per pool: CIDR, family, length, used.
local reply, seen = { HEAD }, {}
for _, grant in ipairs(redis.call('SMEMBERS', KEY .. 'grants')) do
  local plan = planOf({ g = grant })
  for _, family in ipairs(FAMILIES) do
    for _, pool in ipairs(plan[family].pools) do
      local name = pool.cidr .. ' ' .. family .. ' ' .. plan[family].length
      if not seen[name] then
        seen[name] = true
        local used = pool.size > 0 and busyIn(family, pool.first, pool.last, false) or 0
        reply[#reply + 1] = name .. ' ' .. used
      end
    end
  end
end
return reply
