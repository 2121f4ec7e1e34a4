-- checkpoint.lua: the session's state after a turn, kept with the job under its token.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 job, 4 token, 5 blob, 6 '' or, when it is the last one before a
-- hand-over, the ms at which the holder paused.  Returns {1 kept | 0 not the newest holder, messages}.
-- Invariant: an older token never overwrites a newer one's checkpoint; an ended job has none.
local id, token, blob, paused = arg(), arg(), arg(), arg()
local f = call('HMGET', TAG .. 'j:' .. id, 'state', 'token', 'checkpoint')
if f[2] ~= token or not LEASED[f[1]] then return {0, messages} end
if blob ~= '' then
  call('HSET', TAG .. 'c:' .. id, 'token', token, 'blob', blob)
  if f[3] ~= '1' then call('HSET', TAG .. 'j:' .. id, 'checkpoint', '1') end
end
if paused ~= '' then
  local j = load_job(id)
  if has_next(j) then
    save_job(j, {'paused', paused})
    set_timer('handover', id, now + HANDOVER_MS)
    tell(j.next_worker, 'take_over', id, j.next_token)
  else
    tell(j.worker, 'go_on', id, token)  -- called off meanwhile
  end
end
return {1, messages}
