-- What every script begins with: its arguments, the clock, the reign.
--
-- KEYS[1]  {CLUSTER}:meta; all other keys have the same tag and so the same slot
-- ARGV[1]  JSON: clock (µs as text; '' = Redis TIME), reign (its name; '' = made of the server's replication id), seed (of random draws),
--          away (µs without a sign of life that count as "the store was away"; 0 = off), window (µs that nodes have to
--          assert their tunnels in a new reign), restore (µs that the rest may take to come back from Kafka; 0 = there is
--          no Kafka), events (length at which the event stream loses its oldest; 0 = never)
-- ARGV[2]  JSON: what the script itself takes
--
-- Numbers in µs and bytes are doubles here: exact up to 2^53, which µs since 1970 reach in the year 2255.

local VERSION = 1
local KEY = string.sub(KEYS[1], 1, -5)
local HEADER = cjson.decode(ARGV[1])
local ARGS = cjson.decode(ARGV[2])

-- The only place that reads the clock.
local function readClock()
  if HEADER.clock ~= '' then return tonumber(HEADER.clock) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The only place that asks who this server is. A promoted or restarted server has another id.
local function readServer()
  if HEADER.reign ~= '' then return HEADER.reign, true, 0 end
  local info = redis.call('INFO', 'replication')
  local replicas = tonumber(string.match(info, 'connected_slaves:(%d+)')) or 0
  return string.match(info, 'master_replid:(%w+)'), string.match(info, 'role:(%w+)') == 'master', replicas
end

-- Stops the script before it has written anything.
local function stop(message)
  error({ err = message })
end

local function digits(number)
  return string.format('%.0f', number)
end

-- nil = no object of JSON: what stands in a key and was not written by a script of ours must not stop one.
local function decoded(text)
  local read, value = pcall(cjson.decode, text)
  return read and type(value) == 'table' and value or nil
end

local function isWhole(value)
  return type(value) == 'string' and string.match(value, '^%-?%d+$') ~= nil
end

-- Lua's JSON knows NaN, ours does not.
local function isNumber(value)
  return type(value) == 'number' and value == value
end

-- A record of the hash `nodes`; nil = it is none.
local function nodeOf(text)
  local node = text and decoded(text)
  if not node or type(node.name) ~= 'string' then return nil end
  if not isNumber(node.number) or not isNumber(node.tunnels) then return nil end
  return isWhole(node.beat) and isWhole(node.offset) and node or nil
end

local NOW = readClock()
local SERVER, PRIMARY, REPLICAS = readServer()
if not PRIMARY then return redis.error_reply('READONLY this server is a replica') end

local META = redis.call('HMGET', KEYS[1], 'v', 'reign', 'alive', 'away', 'until', 'restoring', 'began')
-- A server whose keys went (FLUSHALL) keeps its id, so the name of a reign says also when it began.
local function reignOf(began)
  return began and began ~= '' and SERVER .. '.' .. began or SERVER
end
local REIGN = reignOf(META[7])
-- The first text of every reply: how many replicas there are, and whose answer it is.
local HEAD = REPLICAS .. ' ' .. REIGN
if META[1] and tonumber(META[1]) > VERSION then
  return redis.error_reply('NEWER keys of version ' .. META[1])
end
if META[2] ~= SERVER and SCRIPT ~= 'begin-reign' then return redis.error_reply('REIGN another one begins') end
-- How long the store was away in all, µs: parked sessions do not age meanwhile (CLUSTER.md C12).
local AWAY = tonumber(META[4] or '0')
math.randomseed(tonumber(HEADER.seed))

-- A sign of life, at most once a second; finds out how long there was none.
local function markAlive()
  local alive = tonumber(META[3] or '0')
  if NOW - alive < 1000000 then return end
  local limit = tonumber(HEADER.away)
  if limit > 0 and alive > 0 and NOW - alive > limit then
    AWAY = AWAY + (NOW - alive)
    redis.call('HSET', KEYS[1], 'away', digits(AWAY))
  end
  redis.call('HSET', KEYS[1], 'alive', digits(NOW))
end

local function isOpen(deadline)
  return deadline and deadline ~= '' and NOW < tonumber(deadline)
end

-- Nodes still assert what they have, or what no node has is still being restored (restore.lua): what is not here may be
-- forgotten, not unknown (CLUSTER.md C1).
local function isAsserting()
  return isOpen(META[5]) or isOpen(META[6])
end

-- In `beats`, by name: when a node was heard of last, and in which life of the store: its absence, its reign.
local function lifeOf()
  return digits(AWAY) .. ' ' .. REIGN
end

local function beatText()
  return digits(NOW) .. ' ' .. lifeOf()
end

-- Is there when this process was replaced by another one of the same node.
local function replacedKey(name, incarnation)
  return KEY .. 'replaced:' .. name .. ':' .. incarnation
end
