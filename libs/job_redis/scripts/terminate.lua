-- terminate.lua: ends a job, or a dispatch with its jobs.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 dispatch (AD_) or job (AJ_).
-- Returns {dispatch, what was stopped (its one job, or the dispatch when it stays), more, messages}; the first two are ''
-- when it does not exist, {'HOLD'} when that is not sure yet.
-- Invariant: a terminal job stays as it is; a cancelled one never starts again. In the hold a stop waits: a recorded end
-- that is still to come goes before it.
local id = arg()
local dispatch, target = '', ''
local d = string.sub(id, 1, 3) == 'AD_' and load_hash(TAG .. 'd:' .. id)
if d and d.stay == '1' then
  dispatch, target = id, id
else
  if d then id = d.job end
  local j = load_job(id)
  if j then dispatch, target = j.dispatch, id end
end
if target == '' then
  if hold then return {'HOLD', '', 0, messages} end
  return {'', '', 0, messages}
end
if hold then
  keep_fact('stops', target, '1')
elseif target == dispatch then
  stop_staying(dispatch)
else
  request_stop(load_job(target))
end
local more = match(MATCH_LIMIT)
return {dispatch, target, more, messages}
