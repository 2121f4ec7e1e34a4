#!lua
-- save_session.lua: what is kept of sessions of one project, merged into what is there.
-- KEYS: 1 parley:{PROJECT}:sessions, then per session parley:{PROJECT}:session:AS, parley:{PROJECT}:erased:AS.
-- ARGV: 1 seconds to keep, then per session: session, create time (ms), count of fields, then field, value ….
-- Returns how many were kept; the others were erased before.
-- Invariant: an erased session stays erased, however late a report of it comes.
local at, kept, first = 2, 0, nil
for key = 2, #KEYS, 2 do
  local id, create, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  if redis.call('EXISTS', KEYS[key + 1]) == 0 then
    redis.call('HSET', KEYS[key], 'id', id, unpack(ARGV, at + 3, at + 2 + 2 * count))
    redis.call('EXPIRE', KEYS[key], ARGV[1])
    redis.call('ZADD', KEYS[1], 'NX', create, id)
    kept, first = kept + 1, first or create
  end
  at = at + 3 + 2 * count
end
if first then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', first - ARGV[1] * 1000)
  redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return kept
