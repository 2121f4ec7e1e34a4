-- forget.lua: a replica does not make a phrase after all, or does not keep it any more (its place went, or it is gone).
-- KEYS: 1 parley:{voice:PROJECT}:meta.  ARGV: 1 phrase, 2 replica, 3 id of the recording.
-- Returns how many still keep it.
-- Invariant: nothing remains of a phrase that nobody keeps; another's claim is left alone.
local phrase, replica, id = arg(), arg(), arg()
local key = TAG .. (call('HGET', KEYS[1], 'generation') or '0') .. ':' .. phrase
if call('HGET', key, 'id') ~= id then return 0 end
call('HDEL', key, 'k:' .. replica)
local maker, keepers = call('HGET', key, 'maker'), 0
for _, field in ipairs(call('HKEYS', key)) do
  if string.sub(field, 1, 2) == 'k:' then keepers = keepers + 1 end
end
if keepers == 0 and (not maker or maker == replica) then call('DEL', key) end
return keepers
