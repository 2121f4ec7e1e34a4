-- note_stall.lua: what the caller of a running job waits for in silence, as an event.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 job, 4 token, 5 type of the event.
-- Returns {1 noted | 0 not the newest holder, messages}.
-- Invariant: nothing but the stream of events changes.
local id, token, kind = arg(), arg(), arg()
local j = load_job(id)
if not j or j.token ~= token or not LEASED[j.state] then return {0, messages} end
job_event(kind, j)
return {1, messages}
