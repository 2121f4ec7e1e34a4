#!lua
-- begin_epoch.lua: a broker meets a pool for the first time, or Redis was restarted or replaced.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 newest epoch the broker knew (0 = none), 2 highest token it saw, 3 its form of records.
-- Returns {epoch, 1 if a hold is on, run_id of this Redis}. NEWER_FORM: these records are written in a form beyond the broker's.
-- Invariant: epochs and tokens rise over every loss of data that some broker outlived, and with the form; until the hold ends
-- nothing is matched, created or swept.
local known, seen, form = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local stored = tonumber(redis.call('HGET', KEYS[1], 'form') or '1')  -- versions that say none write the first
if stored > form then return redis.error_reply('NEWER_FORM ' .. stored) end
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local m = redis.call('HMGET', KEYS[1], 'run_id', 'epoch', 'hwm', 'beat', 'hold_until')
local epoch = tonumber(m[2] or '0')
if m[1] == run_id and epoch >= known and stored == form then return {epoch, m[5] and 1 or 0, run_id} end
local clock = redis.call('TIME')
local micros = clock[1] * 1000000 + clock[2]
local first = epoch == 0 and known == 0
local hwm = math.max(tonumber(m[3] or '0'), seen, micros) + (first and 0 or 3.6e9)
local lost_from = m[4] and tonumber(m[4]) - 10000 or 0
epoch = math.max(epoch, known) + 1
redis.call('HSET', KEYS[1], 'form', form, 'run_id', run_id, 'epoch', epoch, 'hwm', string.format('%.0f', hwm),
  'lost_from', string.format('%.0f', lost_from))
redis.call('HDEL', KEYS[1], 'checked_in')
if first then return {epoch, 0, run_id} end
redis.call('HSET', KEYS[1], 'hold_from', string.format('%.0f', micros / 1000),
  'hold_until', string.format('%.0f', micros / 1000 + 1500))
return {epoch, 1, run_id}
