-- note_stall.lua: what the caller of a running job waits for in silence, as an event.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 job, 4 token, 5 stage, 6 ms waited, 7 '1' when it was given up.
-- Returns {1 noted | 0 not the newest holder, messages}.
-- Invariant: nothing but the stream of events changes.
local id, token, stage, waited, given_up = arg(), arg(), arg(), arg(), arg()
local j = load_job(id)
if not j or j.token ~= token or not LEASED[j.state] then return {0, messages} end
job_event('job_stalled', j, '', '\n\n\n' .. stage .. '\n' .. waited .. '\n' .. given_up)
return {1, messages}
