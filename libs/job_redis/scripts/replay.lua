-- replay.lua: what a broker has answered lately, said again to a Redis that may have lost it.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, then per fact one of
--   create, dispatch, job, not before (ms since 1970), count of pairs, its record as field, value … (see records.cc)
--   stop, job
--   end, job, token, state, reason, error
-- Returns {creates put back, ends put back, more, messages}.
-- Invariant: what was acknowledged is true again, in whatever order brokers and workers come: facts about a job that is
-- still missing wait for it.
local created, ended = 0, 0
local function replay_create(dispatch, id, not_before, r)
  local stay = stays(r)
  if call('EXISTS', TAG .. (stay and 'd:' .. dispatch or 'j:' .. id)) == 1 then return end
  if r.key ~= '' then  -- a retry under the key came first: that one is the dispatch
    local stored = call('GET', TAG .. 'k:' .. r.qproject .. ':' .. r.key)
    if stored and string.match(stored, '^%S+') ~= dispatch then return end
  end
  created = created + 1
  if stay then return write_staying(dispatch, r) end  -- its room is reported again
  local j = write_records(dispatch, id, r)
  queue_new(j, r, not_before)
  apply_facts(j)
end
local function replay_end(id, token, state, reason, detail)
  local j = load_job(id)
  if not j then
    keep_fact('ends', id, table.concat({token, state, reason, detail}, ' '))
  elseif not TERMINAL[j.state] and tonumber(token) >= tonumber(j.token) then
    ended = ended + 1
    record_end(j, token, state, reason, detail)
  end
end
while at < #ARGV do
  local kind = arg()
  if kind == 'create' then
    local dispatch, id, not_before = arg(), arg(), tonumber(arg())
    replay_create(dispatch, id, not_before, read_record(tonumber(arg())))
  elseif kind == 'stop' then
    local id = arg()
    local j = load_job(id)
    if hold or not (j or stop_staying(id)) then
      keep_fact('stops', id, '1')
    elseif j then
      request_stop(j)
    end
  else
    replay_end(arg(), arg(), arg(), arg(), arg())
  end
end
local more = match(MATCH_LIMIT)
return {created, ended, more, messages}
