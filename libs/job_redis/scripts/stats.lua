-- stats.lua: how full a slice of the pool's workers is, for metrics. They are counted a slice at a time, so that no other
-- script waits for ten thousand.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 first worker, 4 how many.
-- Returns {workers, slots, used, free slots that take no job, jobs that workers hold in the pool; of these: draining workers,
-- their slots, their used slots}.
local count, slots, used, closed = 0, 0, 0, 0
local leaving, left_slots, left_used = 0, 0, 0
local first = tonumber(arg())
for _, id in ipairs(call('ZRANGE', TAG .. 'leases', first, first + tonumber(arg()) - 1)) do
  local f = call('HMGET', TAG .. 'w:' .. id, 'slots', 'draining', 'quiet', 'accepting')
  local mine = call('HLEN', TAG .. 'wr:' .. id)
  local size = tonumber(f[1] or '0')
  count, slots, used = count + 1, slots + size, used + mine
  if f[2] == '1' or f[3] == '1' or f[4] == '0' then closed = closed + math.max(0, size - mine) end
  if f[2] == '1' then leaving, left_slots, left_used = leaving + 1, left_slots + size, left_used + mine end
end
return {count, slots, used, closed, cap('j'), leaving, left_slots, left_used}
