#!lua
-- save_session.lua: what is kept of one session, merged into what is there.
-- KEYS: 1 parley:{PROJECT}:session:AS, 2 parley:{PROJECT}:sessions, 3 parley:{PROJECT}:erased:AS.
-- ARGV: 1 session, 2 create time (ms), 3 seconds to keep, then field, value ….  Returns 1 kept, 0 erased before.
-- Invariant: an erased session stays erased, however late a report of it comes.
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'id', ARGV[1], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], 'NX', ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[2] - ARGV[3] * 1000)
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
