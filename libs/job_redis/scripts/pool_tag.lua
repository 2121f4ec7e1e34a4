#!lua
-- pool_tag.lua: the number of a pool, three base-62 characters that its ids carry; given out once, kept for good.
-- KEYS: 1 parley:pools.  ARGV: 1 pool's name, 2 how many pools there may be.  Returns the tag, or nil: too many pools.
-- Invariant: a tag never names two pools.
local tag = redis.call('HGET', KEYS[1], 'n:' .. ARGV[1])
if tag then return tag end
if tonumber(redis.call('HGET', KEYS[1], 'count') or '0') >= tonumber(ARGV[2]) then return false end
local digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
repeat  -- brokers bring back tags of a Redis that lost them: step over those
  local number = redis.call('HINCRBY', KEYS[1], 'count', 1)
  tag = ''
  for _ = 1, 3 do
    local digit = number % 62
    tag = string.sub(digits, digit + 1, digit + 1) .. tag
    number = (number - digit) / 62
  end
until redis.call('HEXISTS', KEYS[1], 't:' .. tag) == 0
redis.call('HSET', KEYS[1], 'n:' .. ARGV[1], tag, 't:' .. tag, ARGV[1])
return tag
