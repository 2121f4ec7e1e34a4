-- drain.lua: a worker takes no more jobs.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 worker, 4 tell the worker (1 or 0).
-- Returns {1 known | 0 not, messages}.
-- Invariant: a draining worker is never matched again.
local w, by_wish = load_worker(arg()), arg()
if not w or w.ended == '1' then return {0, messages} end
if w.draining ~= '1' then
  save_worker(w, {'draining', '1'})
  refresh_free(w)
  event('worker_draining', {project = w.project, worker = w.id})
end
if by_wish == '1' then tell(w.id, 'drain', '', '0') end
return {1, messages}
