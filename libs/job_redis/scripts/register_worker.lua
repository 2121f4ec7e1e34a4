-- register_worker.lua: a worker connects with all it knows of its jobs; what it knows and what is stored become one.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 worker, 4 instance, 5 connect_seq, 6 count of pairs, then the
-- worker's facts as field, value …; then per reported job: job, token, status, reason, error, recorded state,
-- dispatch, count of pairs, its record as field, value … (see record.cc).
-- Returns {OK | INSTANCE_MISMATCH | REPLACED, recovering, more, {job, token, action, recorded state, …}, messages}.
-- Invariant: a slot stays reserved for every copy that runs; the newest token decides whose job it is.
local id, instance, seq = arg(), arg(), arg()
local facts = read_record(tonumber(arg()))
local w = load_worker(id)
if w then
  if w.instance ~= instance then return {'INSTANCE_MISMATCH', 0, 0, {}, messages} end
  local again = w.seq == seq and w.broker == OWN  -- the same call once more
  if w.ended == '1' or (tonumber(seq) <= tonumber(w.seq) and not again) then return {'REPLACED', 0, 0, {}, messages} end
  if w.broker ~= OWN then tell(id, 'replaced', '', w.seq) end
end
local known = w and true or false
w = w or {id = id, draining = '0', register = text(now)}
workers[id] = w
local fields = {'instance', instance, 'seq', seq, 'broker', OWN, 'epoch', EPOCH, 'quiet', '0', 'ended', '0',
  'draining', w.draining, 'register', w.register}
for field, value in pairs(facts) do
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end
if known then  -- it may serve other names now
  for agent in string.gmatch(w.agents, '%S+') do put_free(w, agent, false) end
end
save_worker(w, fields)
call('ZADD', TAG .. 'leases', text(now), id)
if not known then worker_event('worker_registered', w) end

local before = load_hash(TAG .. 'wr:' .. id) or {}
release_all(w)
local lost_from = tonumber(call('HGET', KEYS[1], 'lost_from') or '0')
local verdicts, recovering = {}, 0
local function verdict(job, token, action, state)
  for _, part in ipairs({job, token, action, state or ''}) do verdicts[#verdicts + 1] = part end
end
local STATE_OF = {OFFERED = 'OFFERED', ACCEPTED = 'ASSIGNED', RUNNING = 'RUNNING', STOPPING = 'RUNNING', ENDED = 'RUNNING',
  RELEASED = 'RUNNING'}
local ENTER = {OFFERED = to_offered, ASSIGNED = to_assigned, RUNNING = to_running}

-- Created after what Redis may have lost, and its key not taken by a retry: the report brings it back.
local function rebuild(job, dispatch, r)
  if not dispatch or dispatch == '' or r.create == '' or tonumber(r.create) < lost_from then return false end
  if not hold and r.key ~= '' and call('EXISTS', TAG .. 'k:' .. r.qproject .. ':' .. r.key) == 1 then return false end
  local j = write_records(dispatch, job, r)
  save_job(j, {'state', '', 'attempt', math.max(0, (tonumber(r.attempt) or 0) - 1)})
  dispatch_event('dispatch_created', j, dispatch, job, '', '')
  if call('HEXISTS', TAG .. 'ends', job) == 1 then
    apply_facts(j)
  elseif call('HEXISTS', TAG .. 'stops', job) == 1 then
    save_job(j, {'stop', '1'})
  end
  return j
end

-- A process that waits to take the job over, and has not begun.
local function merge_prepared(job, token)
  reserve(w, job, token)
  local j = load_job(job)
  if not j or TERMINAL[j.state] then return verdict(job, token, 'REVOKE', j and j.state) end
  if is_next(j, id, token) then return verdict(job, token, 'KEEP') end
  if j.token ~= token or j.worker ~= id or not LEASED[j.state] then return verdict(job, token, 'REVOKE') end
  verdict(job, token, 'KEEP')
  tell(id, 'take_over', job, token)  -- promoted meanwhile
end

local function merge_live(job, token, status, dispatch, r)
  reserve(w, job, token)  -- it is physically there
  local j = load_job(job) or rebuild(job, dispatch, r)
  if not j then return verdict(job, token, 'REVOKE') end
  if TERMINAL[j.state] then return verdict(job, token, 'REVOKE', j.state) end
  if is_next(j, id, token) then  -- it was told to take over; RUNNING: and has done so
    if status == 'RUNNING' then apply_next_word(w, j, 'STARTED') end
    if status == 'STOPPING' then clear_next(j) end
    return verdict(job, token, 'KEEP')
  end
  local older = tonumber(token) < tonumber(j.token)
  if older then
    if j.worker == id and (j.state == 'OFFERED' or j.state == 'ASSIGNED') then to_pending(j, 0, '') end
    return verdict(job, token, 'REVOKE')
  end
  local reported = STATE_OF[status]
  if j.token ~= token then  -- Redis lost it
    if LEASED[j.state] and j.worker ~= id then tell(j.worker, 'revoke', job, j.token) end
    seen_token(token)
    save_job(j, {'token', token})
    ENTER[reported](j, w)
  elseif (LEASED[j.state] or 0) < LEASED[reported] then
    ENTER[reported](j, w)  -- taken back, or its word was lost with the stream
  end
  if status == 'STOPPING' then
    lose(j, 'WORKER_LOST')
    return verdict(job, token, 'STOP', TERMINAL[j.state] and j.state)
  end
  if j.stop == '1' then return verdict(job, token, 'STOP') end
  if j.state == 'ASSIGNED' then
    tell(id, 'go', job, token)
    return verdict(job, token, 'GO')
  end
  verdict(job, token, 'KEEP')
end

-- The reason of an end that was recorded: the worker's own, unless the record cannot have come from its word.
local function recorded_reason(state, reason)
  if state == 'CANCELLED' then return 'TERMINATED' end
  if state == 'FAILED' and GOOD[reason] then return 'WORKER_LOST' end
  return reason
end

local function merge_ended(job, token, status, reason, detail, recorded, dispatch, r)
  local j = load_job(job)
  if recorded ~= '' then  -- a fact that a broker answered: back as it was, or at least this attempt is over
    local why = recorded_reason(recorded, reason)
    if not j and TERMINAL[recorded] then
      keep_fact('ends', job, table.concat({token, recorded, why, detail}, ' '))
    elseif j and not TERMINAL[j.state] and tonumber(token) >= tonumber(j.token) then
      seen_token(token)
      if TERMINAL[recorded] then
        record_end(j, token, recorded, why, detail)
      elseif LEASED[j.state] then
        lose(j, reason, detail)
      end
    end
    return verdict(job, token, 'KEEP', j and TERMINAL[j.state] and j.state)
  end
  if not j then  -- lost with the data: it ran, and now it ends
    j = rebuild(job, dispatch, r)
    if j and not TERMINAL[j.state] then
      seen_token(token)
      save_job(j, {'token', token})
      to_running(j, w)
    end
  end
  local _, _, state = apply_word(w, status, job, token, reason, detail, '0')
  verdict(job, token, 'KEEP', TERMINAL[state] and state)
end

local reported = {}
while at < #ARGV do
  local job, token, status, reason, detail, recorded, dispatch = arg(), arg(), arg(), arg(), arg(), arg(), arg()
  local r = read_record(tonumber(arg()))
  reported[job] = true
  local over = status == 'ENDED' or status == 'RELEASED'
  if status == 'PREPARED' then
    merge_prepared(job, token)
  elseif over and (recorded ~= '' or not hold) then
    merge_ended(job, token, status, reason, detail, recorded, dispatch, r)
  else
    local j = over and load_job(job)
    if j and j.state == 'PENDING' and j.token == token then  -- its end is stored, only the answer was lost
      verdict(job, token, 'KEEP')
    else
      merge_live(job, token, over and 'RUNNING' or status, dispatch, r)
    end
    if over then  -- new ends wait for the end of the hold: the job lives until then
      recovering = 1
      keep_fact('held', job, table.concat({id, status, token, reason, detail}, ' '))
    end
  end
end

-- Stored as its own, but not reported: never arrived, or gone.
for job, token in pairs(before) do
  local j = not reported[job] and load_job(job)
  if j and is_next(j, id, token) then
    clear_next(j)
  elseif j and j.token == token and j.worker == id and LEASED[j.state] then
    if j.state == 'RUNNING' then
      lose(j, 'WORKER_LOST')
    elseif used_by(w) < tonumber(w.slots) then
      reserve(w, job, token)
      tell(id, j.state == 'ASSIGNED' and 'go' or 'offer', job, token)
    else
      to_pending(j, 0, '')
    end
  end
end
refresh_free(w)
local more = match(MATCH_LIMIT)
return {'OK', recovering, more, verdicts, messages}
