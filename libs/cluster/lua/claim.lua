-- CONNECT: takes the session for a node. The steps and their order are those of session-decisions.ts.
local WINDOW = 60000000
local CONNECTS_KEPT = 16
local PARKED_PER_USER_MIN = 8
local RESERVED_SECONDS = 86400
local COUNTED = { ['max-clients'] = true, ['max-same-clients'] = true, ['pool-empty'] = true, ['address-taken'] = true, ['no-address-family'] = true }
local TOLD = { ['cookie-timeout'] = true, ['disconnected-timeout'] = true, ['session-timeout'] = true }

local id = ARGS.id
-- The list of fixed addresses is kept once, not sent with each claim. Before anything is written.
if RESERVED and redis.call('EXPIRE', RESERVED, RESERVED_SECONDS) == 0 then return { HEAD, 'reserve' } end
local record = loadAsked()
if not record then
  if isAsserting() then stop('WAITING nodes still assert their sessions') end
  return { HEAD, 'refused', 'token-unknown' }
end
local plan = planOf(record)

-- CONNECTs of the last minute: one line each, AT LEASED RESUMED CONNECTION.
local connects, earlier = {}, nil
for line in string.gmatch(redis.call('GET', KEY .. 'k:' .. id) or '', '[^\n]+') do
  local at, leased, resumed, connection = string.match(line, '^(%d+) (%d) (%d) (.*)$')
  if NOW - tonumber(at) < WINDOW then
    connects[#connects + 1] = line
    if leased == '1' and connection == ARGS.c then earlier = { resumed = resumed } end
  end
end

local function remember(leased, resumed)
  connects[#connects + 1] = digits(NOW) .. ' ' .. leased .. ' ' .. resumed .. ' ' .. ARGS.c
  local kept = math.max(CONNECTS_KEPT, ARGS.perMinute)
  redis.call('SET', KEY .. 'k:' .. id, table.concat(connects, '\n', math.max(1, #connects - kept + 1)), 'PX', 70000)
end

local function refuse(reason)
  if COUNTED[reason] then remember(0, 0) end
  return { HEAD, 'refused', reason }
end

local wanted = {}
for _, family in ipairs(FAMILIES) do
  wanted[family] = ARGS['w' .. family] and (plan[family].fixed ~= nil or #plan[family].pools > 0)
end

-- `told`: may the claiming node itself have mail because of this claim?
local function claimed(text, resumed, fresh, told, returning)
  local offered = (wanted['4'] and '4' or '') .. (wanted['6'] and '6' or '')
  return { HEAD, 'claimed', digits(AWAY), id, text, offered, resumed, fresh, told and '1' or '0', returning and '1' or '0' }
end

-- 1. The same connection again.
if record.st == 'u' and record.lc == ARGS.c then
  return claimed(cjson.encode(record), earlier and earlier.resumed or '1', '0', true, false)
end
-- 2. Closed, or past one of its lifetimes.
if record.st == 'c' then return { HEAD, 'refused', TOLD[record.er] and record.er or 'token-unknown' } end
markAlive()
record = returned(id, record)
local over, why = lifetimeEnd(record, plan)
if over and NOW >= over then
  toEnded(id, record, why)
  return { HEAD, 'refused', why }
end
if earlier then return { HEAD, 'refused', 'superseded' } end
-- 3. and 4.
if ARGS.perMinute > 0 and #connects >= ARGS.perMinute then return { HEAD, 'refused', 'connect-rate' } end
if not wanted['4'] and not wanted['6'] then return refuse('no-address-family') end

-- 5. Limits: per user (refuse, or the oldest goes; of too many parked ones the oldest goes), then in all.
local leaving, isLeaving = {}, {}
local function leave(other)
  local left = not isLeaving[other] and load(other)
  if not left then return end
  isLeaving[other] = left
  leaving[#leaving + 1] = other
end
local function leaveFirst(kind, count)
  local from, to = kindRange(record.u, kind)
  for _, member in ipairs(redis.call('ZRANGEBYLEX', KEY .. 'users', from, to, 'LIMIT', 0, count)) do
    leave(idOfMember(member))
  end
end
if plan.maxSame > 0 and record.st ~= 'u' then
  local excess = redis.call('ZLEXCOUNT', KEY .. 'users', kindRange(record.u, 'U')) + 1 - plan.maxSame
  if excess > 0 then
    if plan.onLimit == 'refuse' then return refuse('max-same-clients') end
    leaveFirst('U', excess)
  end
end
if plan.maxSame > 0 and record.st == 'a' then
  local kept = math.max(plan.maxSame, PARKED_PER_USER_MIN)
  local excess = redis.call('ZLEXCOUNT', KEY .. 'users', kindRange(record.u, 'P')) - kept
  if excess > 0 then leaveFirst('P', excess) end
end
local fresh = false
for _, family in ipairs(FAMILIES) do
  if wanted[family] and not record['b' .. family] then
    if isAsserting() then stop('WAITING a new address waits until the nodes have asserted theirs') end
    fresh = true
    local fixed = plan[family].fixed
    local holder, entry = nil, nil
    if fixed then holder, entry = occupant(family, fixed, plan[family].length) end
    if holder and entry == entryOf(fixed, plan[family].length) and not isLeaving[holder] then
      local other = load(holder)
      -- Of two sessions of one user only one can have the fixed address: a parked one yields, a live one by `on-limit`.
      if not other or other.u ~= record.u or (other.st == 'u' and plan.onLimit == 'refuse') then return refuse('address-taken') end
      leave(holder)
    end
  end
end
local goingDown = 0
for _, other in ipairs(leaving) do
  if isLeaving[other].st == 'u' then goingDown = goingDown + 1 end
end
if ARGS.maxClients > 0 and record.st ~= 'u' then
  local up = tonumber(redis.call('HGET', KEYS[1], 'u') or '0')
  if up - goingDown >= ARGS.maxClients then return refuse('max-clients') end
end

-- 6. Addresses: those that the session has, else fixed, sticky or free ones; where the pools are empty the session
-- parked longest yields, one of the same user first.
local function leavingRecords()
  local records = {}
  for i, other in ipairs(leaving) do records[i] = isLeaving[other] end
  return records
end
local after = copy(record)
for _, family in ipairs(FAMILIES) do
  if wanted[family] and not record['b' .. family] then
    local length = plan[family].length
    local block, reason = chooseBlock(family, record, plan, leavingRecords())
    if reason == 'pool-empty' then
      local other, entry = yielding(family, record, plan[family], function(it) return it == id or isLeaving[it] end)
      if other then
        leave(other)
        block = string.sub(entry, 1, -3)
      end
    end
    if not block then return refuse(reason) end
    after['b' .. family] = entryOf(block, length)
    after['a' .. family] = plan[family].fixedAddress
  end
end
local told = false
local function ofClaimer(other)
  return other.st == 'u' and other.ln == ARGS.node and other.li == ARGS.incarnation
end
for _, other in ipairs(leaving) do
  told = told or ofClaimer(isLeaving[other])
  toEnded(other, isLeaving[other], 'replaced')
end

-- 7. A higher epoch, the lease, the event (CLUSTER.md C1: above what is stored, the clock and what the node has seen).
local seen = tonumber(ARGS.seen) <= NOW + EPOCH_LEAD and tonumber(ARGS.seen) or 0
local epoch = math.max(number(record, 'le') + 1, NOW, seen + 1)
after.ln, after.li, after.le, after.lc = ARGS.node, ARGS.incarnation, digits(epoch), ARGS.c
for _, name in ipairs({ 'ca', 'cu', 'cp', 'ch' }) do put(after, name, ARGS[name]) end
local newest = string.match(record.k or '', '^%S+')
if ARGS.strap ~= '' and ARGS.strap ~= newest then
  local proved = ARGS.proved ~= '' and ARGS.proved or newest
  after.k = proved and ARGS.strap .. ' ' .. proved or ARGS.strap
end
if not record.m then put(after, 'm', ARGS.mtu) end
local active = NOW
if record.st == 'u' then active = number(record, 'ac') end
if record.st == 'p' then active = number(record, 'ac') + math.max(0, NOW - number(record, 'pk')) end
put(after, 'ac', digits(active))
after.st, after.up, after.pk, after.rt, after.tt, after.aw, after.op = 'u', digits(NOW), nil, nil, nil, nil, nil
after.n = record.n + 1

transition(id, record, after)
for _, family in ipairs(FAMILIES) do
  if not record['b' .. family] then hold(id, after, family) end
end
local keys = {}
for key in string.gmatch(after.k or '', '%S+') do keys[#keys + 1] = cjson.encode(key) end
local resumed = record.st ~= 'a'
local moved = record.ln ~= nil and record.ln ~= ARGS.node
emit(id, after, 'claimed', NOW, '"lease":{"name":' .. cjson.encode(ARGS.node) .. ',"incarnation":' .. cjson.encode(ARGS.incarnation)
  .. ',"epoch":"' .. after.le .. '","claimId":' .. cjson.encode(ARGS.c) .. '},"addresses":{"ipv4":"' .. textOf('4', after)
  .. '","ipv6":"' .. textOf('6', after) .. '"},"client":{"address":' .. cjson.encode(ARGS.ca) .. ',"userAgent":' .. cjson.encode(ARGS.cu)
  .. ',"platform":' .. cjson.encode(ARGS.cp) .. ',"hostname":' .. cjson.encode(ARGS.ch) .. '},"strapKeys":[' .. table.concat(keys, ',')
  .. '],"mtuBytes":' .. (after.m or '0') .. ',"resumed":' .. tostring(resumed) .. ',"moved":' .. tostring(moved))
if record.st == 'u' then tell(record.ln, record.li, id, number(record, 'le'), 'superseded') end
remember(1, resumed and 1 or 0)
return claimed(cjson.encode(after), resumed and '1' or '0', fresh and '1' or '0', told or ofClaimer(record),
  resumed and not moved and not fresh)
