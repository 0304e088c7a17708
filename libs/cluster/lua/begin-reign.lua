-- A server that has other keys than the last one, or none: every node asserts what it has (CLUSTER.md C1).
-- The window closes early when all nodes have asserted that were alive; with empty keys nobody knows who was.

if META[2] == SERVER then return { HEAD } end
local began = HEADER.reign == '' and digits(NOW) .. '-' .. HEADER.seed or ''
local window = tonumber(HEADER.window)
local closes = window > 0 and digits(NOW + window) or ''
redis.call('HSET', KEYS[1], 'v', VERSION, 'reign', SERVER, 'began', began, 'until', closes)
local restore = tonumber(HEADER.restore or '0')
if restore > 0 then
  redis.call('HSET', KEYS[1], 'restoring', digits(NOW + restore))
else
  redis.call('HDEL', KEYS[1], 'restoring')
end
redis.call('DEL', KEY .. 'expected')
local newest = 0
local beats = {}
for _, text in ipairs(redis.call('HVALS', KEY .. 'nodes')) do
  local node = nodeOf(text)
  if node then
    beats[node.name] = tonumber(node.beat)
    newest = math.max(newest, beats[node.name])
  end
end
for name, beat in pairs(beats) do
  if META[2] and beat > newest - 5000000 then redis.call('SADD', KEY .. 'expected', name) end
end
return { REPLICAS .. ' ' .. reignOf(began) }
