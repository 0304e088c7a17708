-- Writes sessions that the store has forgotten, from what others know of them: assert.lua, restore.lua.

-- (epoch, claim id): never equal for two leases.
local function isHigher(a, b)
  local left, right = number(a, 'le'), number(b, 'le')
  if left ~= right then return left > right end
  return (a.lc or '') > (b.lc or '')
end

-- Blocks of its addresses; a grant tells how long they are.
local function withBlocks(record, plan, blocks)
  for _, family in ipairs(FAMILIES) do
    if blocks[family] ~= '' then record['b' .. family] = entryOf(blocks[family], plan[family].length) end
  end
  return record
end

-- Two sessions with one address: the later claim loses, or `yields`: this one in any case. @return did this one lose?
local function settle(id, record, plan, yields)
  local rivals = {}
  for _, family in ipairs(FAMILIES) do
    local entry = record['b' .. family]
    local other = entry and occupant(family, string.sub(entry, 1, -3), plan[family].length)
    if other and other ~= id then
      local rival = load(other)
      -- nil = its record is none: that holds no address.
      if rival and (yields or isHigher(record, rival)) then return true end
      rivals[other] = rival
    end
  end
  for other, rival in pairs(rivals) do toEnded(other, rival, 'address-taken') end
  return false
end

local function write(id, before, record, started)
  record.n = math.max(before and before.n or 0, record.n) + 1
  if record.st == 'p' then put(record, 'aw', digits(AWAY)) end
  if before then release(id, before, planOf(before)) end
  transition(id, before, record)
  if record.st ~= 'c' then
    for _, family in ipairs(FAMILIES) do hold(id, record, family) end
  end
  if record.st == 'c' then
    emit(id, record, 'ended', number(record, 'en'), '"reason":"' .. record.er .. '",' .. usageText(record))
  elseif record.st == 'a' then
    emit(id, record, 'started', number(record, 'c'), started)
  elseif record.st == 'p' then
    emit(id, record, 'parked', number(record, 'pk'), '"reason":"node-restarted",' .. usageText(record))
  else
    emit(id, record, 'stats', NOW, usageText(record))
  end
end

local function keepGrants(grants)
  for _, grant in ipairs(grants) do
    if redis.call('EXISTS', KEY .. 'g:' .. grant.key) == 0 then
      redis.call('HSET', KEY .. 'g:' .. grant.key, 'j', grant.grant, 'x', grant.plan, 'r', 0)
      redis.call('SADD', KEY .. 'grants', grant.key)
    end
  end
end
