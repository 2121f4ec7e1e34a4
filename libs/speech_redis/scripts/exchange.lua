-- exchange.lua: a replica says what it holds of a provider's budget and how many wait; it is told how many may begin.
-- KEYS: 1 parley:{budget:PROVIDER}:meta.  ARGV: 1 replica, 2 its lease in ms, 3 streams at once, 4 requests a minute, 5 tokens
-- a minute (each 0 = any number), 6 how many corrections, then per correction: second of the grant, tokens to add; then per
-- project: name, weight, held, waiting, tokens that each of those will take.
-- Returns {second, live replicas, ms until anything is granted at all, grants of the first project, of the second, …}.
-- Invariants: what live replicas hold and were granted is never more than `streams at once` (unless one held more before
-- the limit was lowered or Redis lost what it knew); in no 60 s are more requests granted than `requests a minute`.
-- A replica's own word about what it holds stands above what is stored: a grant whose answer was lost is free again.
-- Slots go to the project with the least of them for its weight; where requests or tokens are what is short, projects take
-- turns by virtual time (+1/weight a grant). A project's slot goes to the replica where most of it wait.
local HOLD_MS = 1000  -- longer than any replica's silence: by then all have said what they hold
local WINDOW_S = 61   -- whole seconds that touch the last minute
local MOST = 1000     -- grants of one call

local META, BOOK, LEASES = KEYS[1], TAG .. 'book', TAG .. 'leases'
local replica, lease, streams, requests, tokens = arg(), number(), number(), number(), number()
local second = math.floor(now / 1000)

-- Another server process, or one that lost its data, knows too little.
local run = string.match(call('INFO', 'server'), 'run_id:(%w+)')
local meta = call('HMGET', META, 'run', 'hold', 'virtual')
local hold, virtual = tonumber(meta[2] or '0'), tonumber(meta[3] or '0')
if meta[1] ~= run then
  hold = now + HOLD_MS
  call('HSET', META, 'run', run, 'hold', text(hold))
end

for _, gone in ipairs(call('ZRANGEBYSCORE', LEASES, '-inf', text(now))) do call('ZREM', LEASES, gone) end
call('ZADD', LEASES, text(now + lease), replica)
local live, count = {}, 0
for _, id in ipairs(call('ZRANGE', LEASES, 0, -1)) do
  live[id], count = true, count + 1
end

-- The last minute, by seconds.
local function window(key, limit)
  if limit == 0 then return math.huge end
  local sum, flat = 0, call('HGETALL', key)
  for i = 1, #flat, 2 do
    if tonumber(flat[i]) <= second - WINDOW_S then
      call('HDEL', key, flat[i])
    else
      sum = sum + tonumber(flat[i + 1])
    end
  end
  return limit - sum
end
for _ = 1, number() do
  local of, delta = arg(), number()
  if tokens > 0 then
    -- What was guessed too high goes back to where it was taken from; what is over counts from now.
    if delta > 0 then
      call('HINCRBY', TAG .. 'tokens', text(second), text(delta))
    elseif call('HEXISTS', TAG .. 'tokens', of) == 1 then
      call('HINCRBY', TAG .. 'tokens', of, text(delta))
    end
  end
end
local requests_left, tokens_left = window(TAG .. 'requests', requests), window(TAG .. 'tokens', tokens)

-- Rows of the book: replica|project → "held waiting granted tokens weight".
local projects, names = {}, {}
local function project(name)
  if not projects[name] then
    projects[name] = {used = 0, waiting = 0, weight = 1, rows = {}}
    names[#names + 1] = name
  end
  return projects[name]
end
local used, mine = 0, {}
local flat = call('HGETALL', BOOK)
for i = 1, #flat, 2 do
  local of, name = string.match(flat[i], '^(.-)|(.*)$')
  local held, waiting, granted, cost, weight = string.match(flat[i + 1], '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
  if not live[of] then
    call('HDEL', BOOK, flat[i])
  elseif of == replica then
    mine[name] = tonumber(granted)
    call('HDEL', BOOK, flat[i])
  else
    local p = project(name)
    local row = {of = of, key = flat[i], held = tonumber(held), waiting = tonumber(waiting), granted = tonumber(granted),
      cost = tonumber(cost), weight = weight}
    p.rows[#p.rows + 1] = row
    p.weight = math.max(p.weight, tonumber(weight))
    p.used, p.waiting = p.used + row.held + row.granted, p.waiting + row.waiting
    used = used + row.held + row.granted
  end
end
local asked = {}
while at < #ARGV do
  local name, weight, held, waiting, cost = arg(), arg(), number(), number(), number()
  local p = project(name)
  -- What was granted between two exchanges is handed over now.
  local give = math.min(mine[name] or 0, waiting)
  local row = {of = replica, key = replica .. '|' .. name, held = held + give, waiting = waiting - give, granted = 0, cost = cost,
    weight = weight, give = give, changed = true}
  p.rows[#p.rows + 1] = row
  p.weight = math.max(p.weight, tonumber(weight))
  p.used, p.waiting = p.used + row.held, p.waiting + row.waiting
  used = used + row.held
  asked[#asked + 1] = row
end

local slots_left = streams == 0 and math.huge or streams - used
local wanted, costs = 0, 0
for _, p in pairs(projects) do
  wanted = wanted + p.waiting
  for _, row in ipairs(p.rows) do costs = costs + row.waiting * row.cost end
end
local times = {}
if wanted > 0 then
  for i, stored in ipairs(call('HMGET', TAG .. 'virtual', unpack(names))) do
    times[names[i]] = math.max(tonumber(stored or '0'), virtual)
  end
end
local by_turns = requests_left < math.min(wanted, slots_left) or tokens_left < costs
local function owed(p) return by_turns and 0 or (p.used + 0.5) / p.weight end
local given = 0
while now >= hold and given < MOST and slots_left > 0 and requests_left > 0 and tokens_left > 0 do
  local best, name
  for _, candidate in ipairs(names) do
    local p = projects[candidate]
    if p.waiting > 0 then
      local before = best and owed(p) - owed(best)
      if not best or before < 0 or (before == 0 and times[candidate] < times[name]) then best, name = p, candidate end
    end
  end
  if not best then break end
  local row
  for _, candidate in ipairs(best.rows) do
    local more = candidate.waiting - (row and row.waiting or 0)
    if more > 0 or (more == 0 and row and candidate.of == replica) then row = candidate end
  end
  row.waiting, row.changed = row.waiting - 1, true
  if row.of == replica then
    row.held, row.give = row.held + 1, row.give + 1
  else
    row.granted = row.granted + 1
  end
  best.waiting, best.used = best.waiting - 1, best.used + 1
  virtual = times[name]
  times[name] = virtual + 1 / best.weight
  best.served = true
  slots_left, requests_left, tokens_left = slots_left - 1, requests_left - 1, tokens_left - row.cost
  given = given + 1
  if requests > 0 then call('HINCRBY', TAG .. 'requests', text(second), 1) end
  if tokens > 0 then call('HINCRBY', TAG .. 'tokens', text(second), text(row.cost)) end
end

for _, name in ipairs(names) do
  for _, row in ipairs(projects[name].rows) do
    if row.changed and row.held + row.waiting + row.granted > 0 then
      call('HSET', BOOK, row.key, text(row.held) .. ' ' .. text(row.waiting) .. ' ' .. text(row.granted) .. ' ' .. text(row.cost) ..
        ' ' .. row.weight)
    end
  end
  if projects[name].served then call('HSET', TAG .. 'virtual', name, string.format('%.9f', times[name])) end
end
if given > 0 then call('HSET', META, 'virtual', string.format('%.9f', virtual)) end
-- Nobody has asked for an hour: nothing here matters any more.
for _, key in ipairs({META, BOOK, LEASES, TAG .. 'requests', TAG .. 'tokens', TAG .. 'virtual'}) do call('EXPIRE', key, 3600) end

local answer = {second, count, math.max(0, hold - now)}
for _, row in ipairs(asked) do answer[#answer + 1] = row.give end
return answer
