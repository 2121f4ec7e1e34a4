-- migrate.lua: begins to hand a running job over to another worker.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 job, 4 token that the asker holds ('' = any), 5 worker ('' = any).
-- Returns {OK | NOT_FOUND | NOT_RUNNING | NO_WORKER | STALE | HOLD, messages}. OK again while it is under way.
-- Invariant: the holder keeps job and token until its successor has started; a slot is reserved for both.
local id, holder, to = arg(), arg(), arg()
local j = load_job(id)
if hold then return {'HOLD', messages} end
if not j then return {'NOT_FOUND', messages} end
if holder ~= '' and holder ~= j.token then return {'STALE', messages} end
if j.state ~= 'RUNNING' or j.stop == '1' then return {'NOT_RUNNING', messages} end
if has_next(j) then return {(to == '' or to == j.next_worker) and 'OK' or 'NO_WORKER', messages} end

j.tried = ''  -- who refused it once may have a slot by now
local w
if to == '' then
  w = pick(j.qagent, j)
else  -- what the asker wants goes before what the job only prefers
  w = load_worker(to)
  local parts = {}
  for part in string.gmatch(j.relaxed or j.sel, '[^&]+') do
    if part ~= '-' then parts[#parts + 1] = part end
  end
  local free = w and call('ZSCORE', free_key(j.qagent), to)
  if not free or not fits(w, j, parts) then w = nil end
end
if not w then return {'NO_WORKER', messages} end

local token = mint()
reserve(w, id, token)
save_job(j, {'next_worker', w.id, 'next_token', token, 'paused', '', 'update', now})
set_timer('handover', id, now + HANDOVER_MS)
tell(w.id, w.all == '1' and 'go' or 'offer', id, token)
event('job_migrating', j.project, j.dispatch, id, w.id, j.room, j.agent, j.state, '', token, j.attempt)
return {'OK', messages}
