-- checked_in.lua: a broker has replayed its ring and has the reports of all its workers. The last one in ends the hold.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 highest token it saw.  Returns {more, messages}.
-- Invariant: the hold ends when every broker is in, or at hold_until (tick).
seen_token(arg())
local more = 0
if hold then
  call('ZADD', TAG .. 'brokers', text(now), OWN)
  call('HSET', KEYS[1], 'checked_in', (call('HGET', KEYS[1], 'checked_in') or '') .. OWN .. ' ')
  if all_are_in() then
    end_hold()
    more = match(MATCH_LIMIT)
  end
end
return {more, messages}
