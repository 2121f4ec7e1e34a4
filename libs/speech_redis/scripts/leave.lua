-- leave.lua: a replica ends; all it held is free at once.
-- KEYS: 1 parley:{budget:PROVIDER}:meta.  ARGV: 1 replica.  Returns how many rows it had.
-- Invariant: what others hold is untouched.
local replica, rows = arg(), 0
for _, field in ipairs(call('HKEYS', TAG .. 'book')) do
  if string.match(field, '^(.-)|') == replica then rows = rows + call('HDEL', TAG .. 'book', field) end
end
call('ZREM', TAG .. 'leases', replica)
return rows
