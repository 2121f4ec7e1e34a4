-- checkpoint.lua: the session's state after a turn, kept with the job under its token.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 job, 4 token, 5 blob.  Returns 1 kept, 0 not the newest holder.
-- Invariant: an older token never overwrites a newer one's checkpoint; an ended job has none.
local id, token, blob = arg(), arg(), arg()
local f = call('HMGET', TAG .. 'j:' .. id, 'state', 'token')
if f[2] ~= token or not LEASED[f[1]] then return 0 end
call('HSET', TAG .. 'c:' .. id, 'token', token, 'blob', blob)
return 1
