#!lua
-- mark_form.lua: a broker says which form of records it writes.
-- KEYS: 1 parley:pools.  ARGV: 1 the form.  Returns the newest that any broker has said.
-- Invariant: it never falls.
local newest = tonumber(redis.call('HGET', KEYS[1], 'form') or '0')
if tonumber(ARGV[1]) <= newest then return newest end
redis.call('HSET', KEYS[1], 'form', ARGV[1])
return tonumber(ARGV[1])
