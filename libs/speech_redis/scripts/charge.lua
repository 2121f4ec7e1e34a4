-- charge.lua: what was used, added to the day and the session of a project, and what stands there now.
-- KEYS: 1 parley:{spend:PROJECT}:meta.  ARGV: 1 replica, 2 number of this charge (rises), 3 how many sessions, then per session:
-- id, how many units, then per unit: name, amount; 4 the session that is asked about ("" = none).
-- Returns {day, {unit, amount, …} of the day, {unit, amount, …} of the session asked about}.
-- Invariant: a charge that is said again (its answer was lost) counts once. Days are those of UTC.
local KEEP_DAYS_S, KEEP_SESSION_S = 35 * 86400, 7 * 86400
local replica, charge = arg(), number()
local day = math.floor(now / 86400000)
local day_key = TAG .. 'day:' .. text(day)
local new = charge > tonumber(call('HGET', KEYS[1], replica) or '0')
local sessions = number()
for _ = 1, sessions do
  local key = TAG .. 'session:' .. arg()
  for _ = 1, number() do
    local unit, amount = arg(), arg()
    if new then
      call('HINCRBY', day_key, unit, amount)
      call('HINCRBY', key, unit, amount)
    end
  end
  if new then call('EXPIRE', key, KEEP_SESSION_S) end
end
if new and sessions > 0 then
  call('HSET', KEYS[1], replica, text(charge))
  call('EXPIRE', KEYS[1], KEEP_DAYS_S)
  call('EXPIRE', day_key, KEEP_DAYS_S)
end
local session = arg()
return {day, call('HGETALL', day_key), session ~= '' and call('HGETALL', TAG .. 'session:' .. session) or {}}
