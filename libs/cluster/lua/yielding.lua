-- Which parked session yields where the pools of a claim are empty (addresses.lua: parked:LIST).
-- Of lists of other pools, which overlap with these ones, and of fixed addresses only so many are looked at.
local PAGE = 128
local LOOKED_AT = 4096

-- May these pools give this entry, if it were free?
local function mayPass(family, entry, wish)
  local block, length = string.sub(entry, 1, -3), tonumber(string.sub(entry, -2), 16)
  if length ~= wish.length then return false end
  for _, pool in ipairs(wish.pools) do
    if within(pool, block) then return not isReserved(family, block, length) end
  end
  return false
end

-- The first that fits of what `page` gives: `look(member)` = session id, entry, since when.
local function firstThatFits(family, wish, isOut, page, look)
  for at = 0, LOOKED_AT - 1, PAGE do
    local members = page(at)
    for _, member in ipairs(members) do
      local id, entry, since = look(member)
      if entry ~= '' and not isOut(id) and mayPass(family, entry, wish) then return id, entry, since end
    end
    if #members < PAGE then return nil end
  end
  return nil
end

local function ownYielding(family, record, wish, isOut)
  local from, to = kindRange(record.u, 'P')
  return firstThatFits(family, wish, isOut, function(at)
    return redis.call('ZRANGEBYLEX', KEY .. 'users', from, to, 'LIMIT', at, PAGE)
  end, function(member)
    local since, blocks = partsOfMember(record.u, member)
    return idOfMember(member), blocks[family], since
  end)
end

local function overlaps(range, wish)
  local first, last = string.match(range, '^(%x+) (%x+)$')
  if not first then return true end
  for _, pool in ipairs(wish.pools) do
    if first <= pool.last and last >= pool.first then return true end
  end
  return false
end

-- @return id and entry, or nil
local function yielding(family, record, wish, isOut)
  local own, entry = ownYielding(family, record, wish, isOut)
  if own then return own, entry end
  local best, bestEntry, bestSince = nil, nil, math.huge
  local head = family .. string.format('%02x', wish.length)
  local lists = redis.call('HGETALL', KEY .. 'parked-lists')
  for i = 1, #lists, 2 do
    if string.sub(lists[i], 1, 3) == head and overlaps(lists[i + 1], wish) then
      local key = KEY .. 'parked:' .. lists[i]
      local id, found = firstThatFits(family, wish, isOut, function(at)
        return redis.call('ZRANGE', key, at, at + PAGE - 1)
      end, function(member) return idOfMember(member), string.sub(member, 1, -17) end)
      local record = id and load(id)
      local since = record and parkedSince(record)
      if since and (since < bestSince or (since == bestSince and id < best)) then
        best, bestEntry, bestSince = id, found, since
      end
    end
  end
  return best, bestEntry
end
