-- drain.lua: a worker takes no more jobs.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 worker, 4 what to tell the worker: '' nothing, else in how many ms
-- its jobs are to be handed over, 0 = as it is configured.
-- Returns {1 known | 0 not, messages}.
-- Invariant: a draining worker is never matched again.
local w, deadline_ms = load_worker(arg()), arg()
if not w or w.ended == '1' then return {0, messages} end
if w.draining ~= '1' then
  save_worker(w, {'draining', '1'})
  refresh_free(w)
  worker_event('worker_draining', w)
end
if deadline_ms ~= '' then tell(w.id, 'drain', '', deadline_ms) end
return {1, messages}
