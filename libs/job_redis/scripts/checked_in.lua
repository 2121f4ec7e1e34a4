-- checked_in.lua: a broker has the reports of all its workers. The last one in ends the hold.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 highest token it saw.  Returns {more, messages}.
-- Invariant: the hold ends when every broker that was there is in, or at hold_until (tick).
seen_token(arg())
local more = 0
if hold then
  call('ZADD', TAG .. 'brokers', text(now), OWN)
  local arrived = ' ' .. (call('HGET', KEYS[1], 'checked_in') or '') .. OWN .. ' '
  local missing = false
  for _, broker in ipairs(call('ZRANGE', TAG .. 'brokers', 0, -1)) do
    missing = missing or not string.find(arrived, ' ' .. broker .. ' ', 1, true)
  end
  if missing then
    call('HSET', KEYS[1], 'checked_in', string.sub(arrived, 2))
  else
    call('HDEL', KEYS[1], 'hold_until', 'checked_in')
    hold = false
    for _, agent in ipairs(call('SMEMBERS', TAG .. 'agents')) do touch(agent) end
    more = match(MATCH_LIMIT)
  end
end
return {more, messages}
