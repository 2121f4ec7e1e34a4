-- publish.lua: a replica has a recording of a phrase on its disk.
-- KEYS: 1 parley:{voice:PROJECT}:meta.  ARGV: 1 phrase, 2 replica, 3 its address, 4 id of the recording, 5 lifetime in ms (made) or
-- 0 (copied from another: the lifetime stays).
-- Returns 1, or 0: it was flushed, is over, or is another's by now; do not keep it.
-- Invariant: only what was made under the newest claim is ever found.
local phrase, replica, address, id, life = arg(), arg(), arg(), arg(), number()
local key = TAG .. (call('HGET', KEYS[1], 'generation') or '0') .. ':' .. phrase
if call('HGET', key, 'id') ~= id then return 0 end
if life > 0 then
  call('HDEL', key, 'maker', 'till')
  call('PEXPIRE', key, life)
elseif call('HEXISTS', key, 'maker') == 1 then
  return 0
end
call('HSET', key, 'k:' .. replica, address)
return 1
