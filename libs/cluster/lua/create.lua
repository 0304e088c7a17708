-- A login that may connect. Repeated with the same `op` it changes nothing.
local WAITING_PER_USER = 4096

markAlive()
local known = load(ARGS.id)
if known and known.op == ARGS.op then return { HEAD, digits(AWAY), ARGS.id, cjson.encode(known) } end
if known then stop('FAULT a session with this token exists already') end

local excess = 1 - WAITING_PER_USER
for _, kind in ipairs({ 'A', 'P' }) do
  excess = excess + redis.call('ZLEXCOUNT', KEY .. 'users', kindRange(ARGS.u, kind))
end
if excess > 0 then
  local waiting = {}
  for kind, away in pairs({ A = 0, P = AWAY }) do
    local from, to = kindRange(ARGS.u, kind)
    for _, member in ipairs(redis.call('ZRANGEBYLEX', KEY .. 'users', from, to, 'LIMIT', 0, excess)) do
      waiting[#waiting + 1] = { id = idOfMember(member), since = partsOfMember(ARGS.u, member) + away }
    end
  end
  table.sort(waiting, function(a, b) return a.since < b.since end)
  for i = 1, excess do
    local longest = load(waiting[i].id)
    if longest then toEnded(waiting[i].id, longest, 'replaced') end
  end
end

if redis.call('EXISTS', KEY .. 'g:' .. ARGS.g) == 0 then
  redis.call('HSET', KEY .. 'g:' .. ARGS.g, 'j', ARGS.grant, 'x', ARGS.plan, 'r', 0)
  redis.call('SADD', KEY .. 'grants', ARGS.g)
end
local record = { v = VERSION, t = ARGS.t, u = ARGS.u, p = ARGS.p, g = ARGS.g, st = 'a', c = digits(NOW), n = 1, op = ARGS.op }
for _, name in ipairs({ 'ca', 'cu', 'cp', 'ch', 'k' }) do put(record, name, ARGS[name]) end
transition(ARGS.id, nil, record)
emit(ARGS.id, record, 'started', NOW, ARGS.event)
return { HEAD, digits(AWAY), ARGS.id, cjson.encode(record) }
