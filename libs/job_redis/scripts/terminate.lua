-- terminate.lua: ends a job, or a dispatch with its job.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 dispatch (AD_) or job (AJ_).
-- Returns {dispatch or '', more, messages}.
-- Invariant: a terminal job stays as it is; a cancelled one never starts again.
local id = arg()
local dispatch = string.sub(id, 1, 3) == 'AD_' and id
if dispatch then id = call('HGET', TAG .. 'd:' .. dispatch, 'job') end
local j = id and load_job(id)
if not j then return {'', 0, messages} end
if not TERMINAL[j.state] then
  local worker, token = j.worker, j.token
  if j.state == 'RUNNING' then
    if j.stop ~= '1' then
      save_job(j, {'stop', '1', 'update', now})
      set_timer('stop', j.id, now + STOP_MS)
    end
    tell(worker, 'stop', j.id, token)
  else
    local leased = LEASED[j.state]
    finish(j, 'CANCELLED', 'TERMINATED')
    if leased then tell(worker, 'revoke', j.id, token) end
  end
end
local more = match(MATCH_LIMIT)
return {j.dispatch, more, messages}
