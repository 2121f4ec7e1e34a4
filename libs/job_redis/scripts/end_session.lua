-- end_session.lua: a worker's session is over (death notice or orderly leave); its jobs are lost to it and matched again.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 worker, 4 instance, 5 connect_seq.
-- Returns {ENDED | OTHER | INSTANCE_MISMATCH | HOLD, more, messages}.
-- Invariant: a session ends once; a newer one of the same worker is never touched.
local id, instance, seq = arg(), arg(), arg()
local w = load_worker(id)
if hold then return {'HOLD', 0, messages} end  -- recorded ends of its jobs are still to come
if not w or w.ended == '1' then return {'OTHER', 0, messages} end
if w.instance ~= instance then return {'INSTANCE_MISMATCH', 0, messages} end
if tonumber(w.seq) > tonumber(seq) then return {'OTHER', 0, messages} end
end_session(w)
local more = match(MATCH_LIMIT)
return {'ENDED', more, messages}
