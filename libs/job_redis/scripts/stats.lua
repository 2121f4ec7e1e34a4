-- stats.lua: how full the pool is, for metrics.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker.  Returns {workers, slots, used, free slots that take no job}.
local count, slots, used, closed = 0, 0, 0, 0
for _, id in ipairs(call('ZRANGE', TAG .. 'leases', 0, -1)) do
  local f = call('HMGET', TAG .. 'w:' .. id, 'slots', 'draining', 'quiet', 'accepting')
  local mine = call('HLEN', TAG .. 'wr:' .. id)
  local size = tonumber(f[1] or '0')
  count, slots, used = count + 1, slots + size, used + mine
  if f[2] == '1' or f[3] == '1' or f[4] == '0' then closed = closed + math.max(0, size - mine) end
end
return {count, slots, used, closed}
