-- terminate.lua: ends a job, or a dispatch with its job.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 dispatch (AD_) or job (AJ_).
-- Returns {dispatch, job, more, messages}; the first two are '' when it does not exist, {'HOLD'} when that is not sure yet.
-- Invariant: a terminal job stays as it is; a cancelled one never starts again. In the hold a stop waits: a recorded end
-- that is still to come goes before it.
local id = arg()
local dispatch = string.sub(id, 1, 3) == 'AD_' and id
if dispatch then id = call('HGET', TAG .. 'd:' .. dispatch, 'job') end
local j = id and load_job(id)
if not j then
  if hold then return {'HOLD', '', 0, messages} end
  return {'', '', 0, messages}
end
if hold then
  keep_fact('stops', j.id, '1')
else
  request_stop(j)
end
local more = match(MATCH_LIMIT)
return {j.dispatch, j.id, more, messages}
