-- Which addresses are taken, which rest, which one is next. A block is an address without its host bits, in hex; an
-- entry is BLOCK .. LENGTH (two hex digits). All choices cost the same in an empty and in a full pool.
--   taken4 taken6   sorted by name: entry .. session id. Blocks never overlap, so the last entry that begins at or
--                   before the end of a block says whether that block is free
--   rest4 rest6     sorted by name: entries that somebody had
--   pool:CIDR       resting entries of one pool, oldest first
--   rested          entry to who had it; last4, last6: user and profile to entry, the hint of a sticky address
--   reserved:TAG    sorted by name: family and address in hex, of the list of fixed addresses that has this tag
--   parked:LIST     entry .. session id, parked longest first; parked-lists: LIST to first and last block of its pool

local WIDTH = { ['4'] = 8, ['6'] = 32 }
local DRAWS = 3
local WINDOW_ENTRIES = 64
local MAX_STEPS = 64
-- Larger pools are never nearly full, and random draws find what is free.
local SMALL_BITS = 30
local DRAWS_OF_MIXED = 512
local REUSE_MICROS = 70000000
local RESTING_LIMIT = 65536

local function limbsOf(block)
  local limbs = {}
  for i = 1, #block, 4 do limbs[#limbs + 1] = tonumber(string.sub(block, i, i + 3), 16) end
  return limbs
end

local function blockOf(limbs)
  local parts = {}
  for i = 1, #limbs do parts[i] = string.format('%04x', limbs[i]) end
  return table.concat(parts)
end

-- base + offset * 2^shift, where base has zeros there. The offset is below 2^30.
local function atOffset(base, offset, shift)
  local limbs = limbsOf(base)
  local at = #limbs - math.floor(shift / 16)
  local value = offset
  local scale = 2 ^ (shift % 16)
  local carry = 0
  while at >= 1 and (value > 0 or carry > 0) do
    local low = value % 65536
    value = (value - low) / 65536
    local sum = limbs[at] + low * scale + carry
    limbs[at] = sum % 65536
    carry = math.floor(sum / 65536)
    at = at - 1
  end
  return blockOf(limbs)
end

-- A random block of the pool: its host bits, of which there may be more than a double has.
local function draw(pool)
  local limbs = limbsOf(pool.base)
  local bits, shift = pool.bits, pool.shift
  local at = #limbs - math.floor(shift / 16)
  local scale = 2 ^ (shift % 16)
  local carry = 0
  while bits > 0 do
    local part = math.min(bits, 16)
    local sum = limbs[at] + math.random(0, 2 ^ part - 1) * scale + carry
    limbs[at] = sum % 65536
    carry = math.floor(sum / 65536)
    bits = bits - part
    at = at - 1
  end
  if carry > 0 then limbs[at] = limbs[at] + carry end
  return blockOf(limbs)
end

local function endOf(family, block, length)
  local host = WIDTH[family] * 4 - length
  if host == 0 then return block end
  local limbs = limbsOf(block)
  local at = #limbs
  while host > 0 do
    local part = math.min(host, 16)
    limbs[at] = limbs[at] + 2 ^ part - 1
    host = host - part
    at = at - 1
  end
  return blockOf(limbs)
end

local function entryOf(block, length)
  return block .. string.format('%02x', length)
end

-- @return id and entry of the session that has a part of this block, or nil
local function occupant(family, block, length)
  local width = WIDTH[family]
  local last = endOf(family, block, length)
  local found = redis.call('ZREVRANGEBYLEX', KEY .. 'taken' .. family, '[' .. last .. '\255', '-', 'LIMIT', 0, 1)[1]
  if not found then return nil end
  local start, size = string.sub(found, 1, width), tonumber(string.sub(found, width + 1, width + 2), 16)
  if start < block and endOf(family, start, size) < block then return nil end
  return idOfMember(found), string.sub(found, 1, width + 2)
end

local RESERVED = ARGS.reserved and ARGS.reserved ~= '' and KEY .. 'reserved:' .. ARGS.reserved or nil

-- Has a fixed address of the configuration a part of this block?
local function isReserved(family, block, length)
  if not RESERVED then return false end
  local last = family .. endOf(family, block, length)
  return redis.call('ZLEXCOUNT', RESERVED, '[' .. family .. block, '[' .. last) > 0
end

local function rests(family, block, length)
  return redis.call('HEXISTS', KEY .. 'rested', entryOf(block, length)) == 1
end

local function countIn(key, first, last)
  return redis.call('ZLEXCOUNT', key, '[' .. first, '[' .. last .. '\255')
end

local function busyIn(family, first, last, resting)
  local busy = countIn(KEY .. 'taken' .. family, first, last)
  if resting then busy = busy + countIn(KEY .. 'rest' .. family, first, last) end
  return busy
end

-- Without its host bits.
local function truncated(address, length)
  local limbs = limbsOf(address)
  for i = 1, #limbs do
    local unit = 2 ^ (16 - math.max(0, math.min(16, length - (i - 1) * 16)))
    limbs[i] = math.floor(limbs[i] / unit) * unit
  end
  return blockOf(limbs)
end

-- Reserved blocks of a pool that `busyIn` does not count, sorted: as many steps as the pool has reserved addresses.
local function spareIn(family, pool, length, resting)
  local spare, seen = {}, nil
  if not RESERVED then return spare end
  local last = family .. endOf(family, pool.last, length)
  for _, member in ipairs(redis.call('ZRANGEBYLEX', RESERVED, '[' .. family .. pool.first, '[' .. last)) do
    local block = truncated(string.sub(member, 2), length)
    if block ~= seen and not occupant(family, block, length) and not (resting and rests(family, block, length)) then
      spare[#spare + 1] = block
    end
    seen = block
  end
  return spare
end

-- How many of these sorted texts come before this one, or before its successor.
local function countBefore(sorted, text, inclusive)
  local low, high = 0, #sorted
  while low < high do
    local middle = math.floor((low + high) / 2) + 1
    if sorted[middle] < text or (inclusive and sorted[middle] == text) then low = middle else high = middle - 1 end
  end
  return low
end

-- Offsets of a pool to blocks, for pools of up to 2^48 of them.
local function blocksOf(family, pool)
  if pool.shift % 4 ~= 0 then
    return function(offset) return atOffset(pool.base, offset, pool.shift) end
  end
  local zeros = string.rep('0', pool.shift / 4)
  local places = math.min(12, WIDTH[family] - #zeros)
  local from = WIDTH[family] - #zeros - places
  local head = string.sub(pool.base, 1, from)
  local base = tonumber(string.sub(pool.base, from + 1, from + places), 16)
  local format = '%0' .. places .. 'x'
  return function(offset) return head .. string.format(format, base + offset) .. zeros end
end

local function randomOffset(pool)
  return pool.from + math.floor(math.random() * pool.size)
end

-- Looks for a gap in the next taken blocks from a random place on. Needs blocks of one size.
local function gap(family, pool, length, blockAt)
  local key, stopAt = KEY .. 'taken' .. family, pool.from + pool.size
  local offset = randomOffset(pool)
  local entries =
    redis.call('ZRANGEBYLEX', key, '[' .. blockAt(offset), '[' .. pool.last .. '\255', 'LIMIT', 0, WINDOW_ENTRIES)
  local block, steps = blockAt(offset), 0
  for i = 1, #entries + 1 do
    local taken = entries[i] and string.sub(entries[i], 1, WIDTH[family])
    while block ~= taken do
      steps = steps + 1
      if steps > MAX_STEPS or offset >= stopAt or (not taken and #entries == WINDOW_ENTRIES) then return nil end
      if not rests(family, block, length) and not isReserved(family, block, length) then return block end
      offset = offset + 1
      block = blockAt(offset)
    end
    offset = offset + 1
    block = blockAt(offset)
  end
  return nil
end

-- Halves the pool until one free block is left, from a random place on. Needs blocks of one size.
local function search(family, pool, length, resting, blockAt)
  local spare = spareIn(family, pool, length, resting)
  local function hasFree(low, high)
    if low > high then return false end
    local first, last = blockAt(low), blockAt(high)
    local reserved = countBefore(spare, last, true) - countBefore(spare, first, false)
    return busyIn(family, first, last, resting) + reserved < high - low + 1
  end
  local low, high = pool.from, pool.from + pool.size - 1
  local pivot = randomOffset(pool)
  if hasFree(pivot, high) then low = pivot elseif hasFree(low, pivot - 1) then high = pivot - 1 else return nil end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if hasFree(low, middle) then high = middle else low = middle + 1 end
  end
  return blockAt(low)
end

local function neverUsed(family, pool, length)
  if busyIn(family, pool.first, pool.last, true) >= pool.size then return nil end
  local mixed = family == '6' and redis.call('HLEN', KEY .. 'lengths') > 1
  local blockAt = pool.bits <= SMALL_BITS and blocksOf(family, pool) or nil
  for _ = 1, mixed and DRAWS_OF_MIXED or DRAWS do
    local block = blockAt and blockAt(randomOffset(pool)) or draw(pool)
    local free = within(pool, block) and not occupant(family, block, length) and not rests(family, block, length)
    if free and not isReserved(family, block, length) then return block end
  end
  if mixed or not blockAt then return nil end
  return gap(family, pool, length, blockAt) or search(family, pool, length, true, blockAt)
end

local function poolKey(cidr)
  return KEY .. 'pool:' .. cidr
end

local function forgetRest(family, entry, info)
  local by = decoded(info)
  redis.call('HDEL', KEY .. 'rested', entry)
  redis.call('ZREM', KEY .. 'rest' .. family, entry)
  if not by or type(by.p) ~= 'string' or type(by.u) ~= 'string' then return end
  redis.call('ZREM', poolKey(by.p), entry)
  if redis.call('HGET', KEY .. 'last' .. family, by.u) == entry then redis.call('HDEL', KEY .. 'last' .. family, by.u) end
end

-- The longest resting block of the pool that rests since `since`.
local function rested(family, pool, length, since)
  local oldest = redis.call('ZRANGE', poolKey(pool.cidr), 0, 15, 'WITHSCORES')
  for i = 1, #oldest, 2 do
    if tonumber(oldest[i + 1]) > since then return nil end
    local block, size = string.sub(oldest[i], 1, -3), tonumber(string.sub(oldest[i], -2), 16)
    local free = size == length and within(pool, block) and not occupant(family, block, length)
    if free and not isReserved(family, block, length) then return block end
  end
  return nil
end

-- The home of the claiming node (home-slices.ts): by family its slices, first and last address and prefix length.
local HOME = ARGS.home or {}
local LEAST_SLICE_BITS = 3

-- Of a pool what is at home: all of it, or the slices that lie in it. Blocks of addresses lie in each other or apart.
local function partsAtHome(family, pool, length)
  local parts = {}
  if pool.size == 0 then return parts end
  local prefix, ending = length - pool.bits, endOf(family, pool.last, length)
  for _, slice in ipairs(HOME[family] or {}) do
    if slice.prefix <= prefix then
      if slice.first <= pool.base and pool.base <= slice.last then return { pool } end
    elseif length - slice.prefix >= LEAST_SLICE_BITS and pool.base <= slice.first and slice.first <= ending then
      local isFirst, isLast = slice.first == pool.base, slice.last > ending
      local from = isFirst and pool.from or 0
      parts[#parts + 1] = {
        cidr = pool.cidr,
        base = slice.first,
        first = isFirst and pool.first or slice.first,
        last = isLast and pool.last or truncated(slice.last, length),
        from = from,
        size = 2 ^ (length - slice.prefix) - from - (isLast and 1 or 0),
        bits = length - slice.prefix,
        shift = pool.shift,
      }
    end
  end
  return parts
end

-- One of this part of a pool that rests since `since`: the longest, or else one from a random place on.
local function restedAtHome(family, part, length, since)
  local block = rested(family, part, length, since)
  if block then return block end
  local at = part.bits <= SMALL_BITS and blocksOf(family, part)(randomOffset(part)) or draw(part)
  for _, range in ipairs({ { at, part.last }, { part.first, at } }) do
    local key, from, to = KEY .. 'rest' .. family, '[' .. range[1], '[' .. range[2] .. '\255'
    for _, entry in ipairs(redis.call('ZRANGEBYLEX', key, from, to, 'LIMIT', 0, WINDOW_ENTRIES)) do
      local freed = redis.call('ZSCORE', poolKey(part.cidr), entry)
      if freed and tonumber(freed) <= since and tonumber(string.sub(entry, -2), 16) == length then
        local found = string.sub(entry, 1, -3)
        if not occupant(family, found, length) and not isReserved(family, found, length) then return found end
      end
    end
  end
  return nil
end

local function holderKey(record)
  return cjson.encode({ record.u, record.p })
end

-- Chooses one block for a session, as if `leaving` (records that end in this step) had ended already.
-- @return block, or nil and the reason
local function chooseBlock(family, record, plan, leaving)
  local wish = plan[family]
  local length = wish.length
  local freed, sticky = {}, nil
  for _, other in ipairs(leaving) do
    local entry = other['b' .. family]
    if entry then
      freed[entry] = true
      if other.u == record.u and other.p == record.p then sticky = entry end
    end
  end
  local function isFree(block)
    local holder, entry = occupant(family, block, length)
    return not holder or (freed[entry] and entry == entryOf(block, length))
  end
  if wish.fixed then
    if isFree(wish.fixed) then return wish.fixed end
    return nil, 'address-taken'
  end
  sticky = sticky or redis.call('HGET', KEY .. 'last' .. family, holderKey(record))
  local function stickyIn(pools)
    if not sticky or #sticky ~= WIDTH[family] + 2 or tonumber(string.sub(sticky, -2), 16) ~= length then return nil end
    local block = string.sub(sticky, 1, -3)
    for _, pool in ipairs(pools) do
      if within(pool, block) and isFree(block) and not isReserved(family, block, length) then return block end
    end
    return nil
  end
  local home = {}
  for _, pool in ipairs(wish.pools) do
    for _, part in ipairs(partsAtHome(family, pool, length)) do home[#home + 1] = part end
  end
  local own = stickyIn(home)
  if own then return own end
  for _, part in ipairs(home) do
    local block = neverUsed(family, part, length) or restedAtHome(family, part, length, NOW - REUSE_MICROS)
    if block then return block end
  end
  own = stickyIn(wish.pools)
  if own then return own end
  for _, pool in ipairs(wish.pools) do
    local block = neverUsed(family, pool, length) or rested(family, pool, length, NOW - REUSE_MICROS)
    if block then return block end
  end
  for _, pool in ipairs(wish.pools) do
    local block = rested(family, pool, length, NOW)
    if block then return block end
    for entry in pairs(freed) do
      block = string.sub(entry, 1, -3)
      local fits = entry == entryOf(block, length) and within(pool, block)
      if fits and not isReserved(family, block, length) then return block end
    end
    -- What rests in the list of another pool that overlaps with this one.
    if pool.bits <= SMALL_BITS and busyIn(family, pool.first, pool.last, false) < pool.size then
      block = search(family, pool, length, false, blocksOf(family, pool))
      local free = block and not occupant(family, block, length)
      if free and not isReserved(family, block, length) then return block end
    end
  end
  return nil, 'pool-empty'
end

-- The client's own address in a block, as text.
local function addressOf(family, block, length)
  local limbs = limbsOf(block)
  if length < WIDTH[family] * 4 then limbs[#limbs] = limbs[#limbs] + 1 end
  if family == '4' then
    return math.floor(limbs[1] / 256) .. '.' .. limbs[1] % 256 .. '.' .. math.floor(limbs[2] / 256) .. '.' .. limbs[2] % 256
  end
  -- RFC 5952 §4.2: the longest run of two or more zero groups, the first of equals.
  local from, best = 0, 1
  local start = 1
  while start <= 8 do
    local stopAt = start
    while stopAt <= 8 and limbs[stopAt] == 0 do stopAt = stopAt + 1 end
    if stopAt - start > best then from, best = start, stopAt - start end
    start = math.max(stopAt, start + 1)
  end
  local function groups(first, last)
    local parts = {}
    for i = first, last do parts[#parts + 1] = string.format('%x', limbs[i]) end
    return table.concat(parts, ':')
  end
  if from == 0 then return groups(1, 8) end
  return groups(1, from - 1) .. '::' .. groups(from + best, 8)
end

local function textOf(family, record)
  local entry = record['b' .. family]
  if not entry then return '' end
  return record['a' .. family] or addressOf(family, string.sub(entry, 1, -3), tonumber(string.sub(entry, -2), 16))
end

local function hold(id, record, family)
  local entry = record['b' .. family]
  if not entry then return end
  local info = redis.call('HGET', KEY .. 'rested', entry)
  if info then forgetRest(family, entry, info) end
  redis.call('ZADD', KEY .. 'taken' .. family, 0, entry .. bin(id))
  if family == '6' then redis.call('HINCRBY', KEY .. 'lengths', string.sub(entry, -2), 1) end
end

local function rest(family, entry, record, plan)
  local block = string.sub(entry, 1, -3)
  -- A fixed address is mostly reserved: it would stand before those that the pool may give.
  local cidr = '-'
  for _, pool in ipairs(plan[family].pools) do
    if within(pool, block) and not record['a' .. family] then
      cidr = pool.cidr
      break
    end
  end
  local user = holderKey(record)
  redis.call('HSET', KEY .. 'rested', entry, cjson.encode({ p = cidr, u = user }))
  redis.call('HSET', KEY .. 'last' .. family, user, entry)
  redis.call('ZADD', KEY .. 'rest' .. family, 0, entry)
  redis.call('ZADD', poolKey(cidr), digits(NOW), entry)
  if redis.call('ZCARD', poolKey(cidr)) <= RESTING_LIMIT then return end
  local oldest = redis.call('ZRANGE', poolKey(cidr), 0, 0)[1]
  forgetRest(family, oldest, redis.call('HGET', KEY .. 'rested', oldest))
end

-- An address is freed only when its session ends.
local function release(id, record, plan)
  for _, family in ipairs(FAMILIES) do
    local entry = record['b' .. family]
    if entry and redis.call('ZREM', KEY .. 'taken' .. family, entry .. bin(id)) == 1 then
      if family == '6' and redis.call('HINCRBY', KEY .. 'lengths', string.sub(entry, -2), -1) <= 0 then
        redis.call('HDEL', KEY .. 'lengths', string.sub(entry, -2))
      end
      rest(family, entry, record, plan)
    end
  end
end

-- Ends a session; its node is told unless it asked for that itself.
local function toEnded(id, record, reason, usage, askedByOwner)
  local after = copy(record)
  if usage then count(after, usage) end
  after.st, after.en, after.er, after.n, after.op = 'c', digits(NOW), reason, record.n + 1, ARGS.op
  release(id, record, planOf(record))
  transition(id, record, after)
  emit(id, after, 'ended', NOW, '"reason":"' .. reason .. '",' .. usageText(after))
  if record.st == 'u' and not askedByOwner then
    tell(record.ln, record.li, id, number(record, 'le'), reason)
  end
  return after
end
