-- prelude.lua: put before the scripts of the library (all that do not start with `#!lua`). Holds the one copy of each state
-- change. Redis keeps the library loaded, so what a call knows is set anew by begin(); flush() writes what it left to the end.
-- ARGV: 1 epoch, 2 id of the calling broker, then the script's own.
-- Keys are built from the tag of KEYS[1] = parley:{POOL}:meta, so all live in one slot.
local call, spread, KEYS, ARGV, TAG, K, EPOCH, OWN, meta, clock, now, now_text, hwm, seq, hold
local messages, touched, touch_list  -- of this call; more of the kind stands with its functions

local OFFER_MS, START_MS, STOP_MS, PARK_MS, PREFER_MS = 3000, 10000, 10000, 1000, 500
local QUIET_MS, LEASE_MS = 3000, 12000
local HANDOVER_MS, REST_MS = 5000, 15000  -- a silent successor; a holder that waits for a quiet moment
local KEEP_S, PAST_MAX, ROOM_PAST_MAX, EVENTS_MAX = '3600', 10000, 1000, '200000'
local MAX_ATTEMPTS, MAX_OFFERS = 3, 20
local GOOD = {PARTICIPANTS_LEFT = true, SHUTDOWN = true, ROOM_CLOSED = true}
local FINAL = {NO_WORKER_BEFORE_DEADLINE = true, REJECTED = true, DEFINITION_INVALID = true}
local TERMINAL = {SUCCEEDED = true, FAILED = true, CANCELLED = true}
local LEASED = {OFFERED = 1, ASSIGNED = 2, RUNNING = 3}  -- and how far along

-- Arguments, one after another.
local at
local function arg()
  at = at + 1
  return ARGV[at]
end

-- Lua writes large numbers as 1.8e+15; Redis must see all digits.
local function text(value)
  if value == now then return now_text end
  if type(value) == 'number' then return string.format('%.0f', value) end
  return value
end

local function load_hash(key)
  local flat = call('HGETALL', key)
  if #flat == 0 then return false end
  local hash = {}
  for i = 1, #flat, 2 do hash[flat[i]] = flat[i + 1] end
  return hash
end

-- What is not stored of a job is as here, so that nothing is written that says nothing.
local UNSAID = {state = '', reason = '', previous = '', error = '', token = '0', worker = '', attempt = '0', counted = '',
  offers = '0', stop = '0', tried = '', cap = '', stay = '', unique = '', identity = '', agent_id = '', agent_version = '',
  session = '', policy = '', sel = '-', payload = '', handed = '', next_worker = '', next_token = '', paused = ''}
local JOB = {__index = UNSAID}
-- The same for the record of a dispatch that a broker says (records.cc).
local RECORD = {__index = {selector = '-', relaxed = '-', project = '', agent = '', room = '', room_sid = '', policy = '',
  priority = '', type = '', identity = '', key = '', hash = '', agent_id = '', agent_version = '', session = '', trace = '',
  create = '', deadline = '', wait = '', attempt = '', payload = '', stay = '', present = '', unique = ''}}
-- Versions that did not say the form of their records wrote empty fields too, and did not mark what they kept beside them: a
-- payload, a checkpoint, the dispatch in the set of its room.
local function wrote_all(r) return rawget(r, 'identity') == '' or rawget(r, 'unique') == '' or rawget(r, 'key') == '' end
-- Names in keys are escaped; stored where that makes a difference.
local function with_names(record)
  record.qagent = record.qagent or record.agent
  record.qproject = record.qproject or record.project
  record.qroom = record.qroom or record.room
  return record
end

-- Jobs and workers as this call left them: loaded once, written once, by flush().
local jobs, workers, unwritten, unwritten_list
local function load_job(id)
  if jobs[id] == nil then
    jobs[id] = load_hash(TAG .. 'j:' .. id)
    if jobs[id] then
      jobs[id].id = id
      setmetatable(with_names(jobs[id]), JOB)
    end
  end
  return jobs[id]
end
local function load_worker(id)
  if workers[id] == nil then
    workers[id] = load_hash(TAG .. 'w:' .. id)
    if workers[id] then workers[id].id = id end
  end
  return workers[id]
end
local function to_write(key, record)
  local w = unwritten[record]
  if not w then
    w = {key = key, record = record, names = {}, has = {}}
    unwritten[record] = w
    unwritten_list[#unwritten_list + 1] = w
  end
  return w
end
local function write(key, record, fields)
  local w = to_write(key, record)
  local names, has = w.names, w.has
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if type(value) == 'number' then value = text(value) end
    if record[name] ~= value or rawget(record, name) ~= nil then  -- else it says nothing
      record[name] = value
      if not has[name] then
        has[name] = true
        names[#names + 1] = name
      end
    end
  end
end
local function write_all()
  for _, w in ipairs(unwritten_list) do
    local flat, names, record = {}, w.names, w.record
    for i = 1, #names do flat[2 * i - 1], flat[2 * i] = names[i], record[names[i]] end
    if #names > 0 then call('HSET', w.key, spread(flat)) end
    if w.keep_s then call('EXPIRE', w.key, w.keep_s) end
  end
end

-- Limits of the pool and its projects (limits.lua), read when first asked for.
local pool_limits, project_limits
local function read_limits(project)
  local f = call('HMGET', K.limits, 'w:' .. project, 'j:' .. project, 'q:' .. project, 'jobs', 'queued', 'pack')
  project_limits[project] = {weight = tonumber(f[1] or '1'), jobs = tonumber(f[2] or '0'), queued = tonumber(f[3] or '0')}
  pool_limits = {jobs = tonumber(f[4] or '0'), queued = tonumber(f[5] or '0'), pack = f[6] == '1'}
end
local function pool_limit()
  if not pool_limits then read_limits('') end
  return pool_limits
end
local function project_limit(project)
  if not project_limits[project] then read_limits(project) end
  return project_limits[project]
end

-- What caps are compared with: jobs that wait (q:PROJECT) and jobs that workers hold (j:PROJECT), and those of the pool (j).
local caps_stored, caps_added
local function cap(field)
  if not caps_stored[field] then caps_stored[field] = tonumber(call('HGET', K.caps, field) or '0') end
  return caps_stored[field] + (caps_added[field] or 0)
end
local function add_cap(field, count) caps_added[field] = (caps_added[field] or 0) + count end
local uncap
local function count_job(j, state)
  local kind = state == 'PENDING' and 'q' or LEASED[state] and 'j' or ''
  local before = j.cap
  if kind == before then return end
  if before ~= '' then add_cap(before .. ':' .. j.qproject, -1) end
  if kind ~= '' then add_cap(kind .. ':' .. j.qproject, 1) end
  if kind == 'j' then
    add_cap('j', 1)
  elseif before == 'j' then
    add_cap('j', -1)
    uncap(j.qproject)
  end
  return kind
end
local function save_job(j, fields)
  for i = 1, #fields, 2 do
    local kind = fields[i] == 'state' and count_job(j, fields[i + 1])
    if kind then
      fields[#fields + 1] = 'cap'
      fields[#fields + 1] = kind
      break
    end
  end
  write(TAG .. 'j:' .. j.id, j, fields)
end
local function save_worker(w, fields) write(TAG .. 'w:' .. w.id, w, fields) end

-- Messages for workers: returned when the stream is on the calling broker, else put into the inbox of the other one.
local function tell(worker, kind, job, token)
  local w = load_worker(worker)
  if not w or w.ended == '1' then return end
  if w.broker == OWN then
    for _, part in ipairs({kind, worker, job, text(token)}) do messages[#messages + 1] = part end
  else
    local inbox = TAG .. 'inbox:' .. w.broker
    call('XADD', inbox, 'MAXLEN', '~', 10000, '*', 'k', kind, 'w', worker, 'j', job, 't', text(token))
    call('EXPIRE', inbox, 60)
  end
end

-- One field, its parts on lines of their own (ToEvent in events.cc): names hold no control characters.
local function event(kind, project, dispatch, job, worker, room, agent, state, reason, token, attempt)
  call('XADD', K.events, 'MAXLEN', '~', EVENTS_MAX, EPOCH .. '-*', 'e', now_text .. '\n' .. kind .. '\n' .. project .. '\n'
    .. dispatch .. '\n' .. job .. '\n' .. worker .. '\n' .. room .. '\n' .. agent .. '\n' .. state .. '\n' .. reason
    .. '\n' .. token .. '\n' .. attempt)
end
-- Of a dispatch; `job`, `state` and `reason` may be ''.
local function dispatch_event(kind, r, dispatch, job, state, reason)
  event(kind, r.project or '', dispatch, job, '', r.room or '', r.agent or '', state, reason, '0', '0')
end
local function worker_event(kind, w) event(kind, w.project or '', '', '', w.id, '', '', '', '', '0', '0') end
local function job_event(kind, j, reason)
  event(kind, j.project, j.dispatch, j.id, j.worker, j.room, j.agent, j.state, reason or '', j.token, j.attempt)
end

local function set_timer(kind, id, ms) call('ZADD', K.timers, text(ms), kind .. ':' .. id) end
local function drop_timers(id, ...)
  local names = {...}
  for i = 1, #names do names[i] = names[i] .. ':' .. id end
  call('ZREM', K.timers, spread(names))
end

-- A token is unique in the pool and rises: the time in microseconds, or one more than the last.
local function mint()
  local micros = clock[1] * 1000000 + clock[2]
  hwm = math.max(hwm + 1, micros)
  return text(hwm)
end
local function seen_token(token)
  hwm = math.max(hwm, tonumber(token))
end

-- Queues. Agents whose queues or workers changed are matched at the end of the script.
local function touch(agent)
  if not touched[agent] then
    touched[agent] = true
    touch_list[#touch_list + 1] = agent
  end
end
local function queue_key(agent, project, sel) return TAG .. 'q:' .. agent .. ':' .. project .. ':' .. sel end
local function enter_ready(agent, project)
  local ready = TAG .. 'ready:' .. agent
  if call('ZSCORE', ready, project) then return end
  local lowest = call('ZRANGE', ready, 0, 0, 'WITHSCORES')  -- newcomers start at the minimum
  call('ZADD', ready, lowest[2] or '0', project)
  call('SADD', TAG .. 'agents', agent)
end
local function leave_ready(agent, project)
  local ready = TAG .. 'ready:' .. agent
  call('ZREM', ready, project)
  if call('EXISTS', ready) == 0 then call('SREM', TAG .. 'agents', agent) end
end
local function refresh_head(agent, project, sel)
  local subs = TAG .. 'subs:' .. agent .. ':' .. project
  local first = call('ZRANGE', queue_key(agent, project, sel), 0, 0, 'WITHSCORES')
  if #first > 0 then
    call('ZADD', subs, first[2], sel)
    return enter_ready(agent, project)
  end
  call('ZREM', subs, sel)
  if call('EXISTS', subs) == 0 then leave_ready(agent, project) end
end
-- A job of `project` has left its worker (nil: limits changed): who waited at a cap is ready again.
function uncap(project)
  if project and project_limit(project).jobs == 0 and pool_limit().jobs == 0 then return end
  local capped = TAG .. 'capped'
  for _, member in ipairs(call('SMEMBERS', capped)) do
    local waiting, agent = string.match(member, '^(%S+) (%S+)$')
    if not project or waiting == project then
      call('SREM', capped, member)
      if call('EXISTS', TAG .. 'subs:' .. agent .. ':' .. waiting) == 1 then enter_ready(agent, waiting) end
      touch(agent)
    end
  end
  if not project or pool_limit().jobs > 0 then
    for _, agent in ipairs(call('SMEMBERS', TAG .. 'agents')) do touch(agent) end
  end
end
local function enqueue(j)
  call('ZADD', queue_key(j.qagent, j.qproject, j.sel), j.score, j.id)
  refresh_head(j.qagent, j.qproject, j.sel)
  touch(j.qagent)
end
local function dequeue(j)
  if call('ZREM', queue_key(j.qagent, j.qproject, j.sel), j.id) == 1 then
    refresh_head(j.qagent, j.qproject, j.sel)
  end
end

-- Whether a worker takes jobs shows in `free`, once for each agent it serves and once more for each of its facts (labels,
-- region, deployment), so that a selector costs the same however many workers there are. The score is used/slots.
local function free_key(agent, part) return TAG .. 'free:' .. agent .. (part and ':' .. part or '') end
local function put_free(w, agent, score)
  local function put(key)
    if score then call('ZADD', key, score, w.id) else call('ZREM', key, w.id) end
  end
  put(free_key(agent))
  for part in string.gmatch(w.facts or '', '[^&]+') do put(free_key(agent, part)) end
end
-- It is put there before somebody looks (settle), so that many words of a worker change it once.
local used_slots, unsettled  -- by worker
local function refresh_free(w) unsettled[w] = true end
local function used_by(w)
  if not used_slots[w] then used_slots[w] = call('HLEN', TAG .. 'wr:' .. w.id) end
  return used_slots[w]
end
local function settle()
  while next(unsettled) do
    local w = next(unsettled)
    unsettled[w] = nil
    local used, slots = used_by(w), tonumber(w.slots)
    local open = used < slots and w.ended ~= '1' and w.quiet ~= '1' and w.draining ~= '1' and w.accepting ~= '0'
      and w.epoch == EPOCH
    for agent in string.gmatch(w.agents, '%S+') do
      put_free(w, agent, open and string.format('%.6f', used / slots))
      if open then touch(agent) end
    end
  end
end
local function reserve(w, job, token)
  local used = used_by(w)
  used_slots[w] = used + call('HSET', TAG .. 'wr:' .. w.id, job, token)
  refresh_free(w)
end
-- Only the worker's own word for (job, token), or the end of its session, frees a slot.
local function release(w, job, token)
  local slots = TAG .. 'wr:' .. w.id
  if call('HGET', slots, job) ~= token then return end
  local used = used_by(w)
  used_slots[w] = used - call('HDEL', slots, job)
  refresh_free(w)
end
local function release_all(w)
  call('DEL', TAG .. 'wr:' .. w.id)
  used_slots[w] = 0
  refresh_free(w)
end

-- State changes. Each writes one event.
local function leave(j)  -- whatever state it was in
  local state = j.state  -- '': it was just made, or has left already
  if state == 'PENDING' then
    dequeue(j)
    call('ZREM', K.pending, j.id)
    drop_timers(j.id, 'deadline', 'queue', 'relax')
  elseif state == 'OFFERED' then
    drop_timers(j.id, 'offer')
  elseif state == 'ASSIGNED' then
    drop_timers(j.id, 'start')
  elseif state == 'RUNNING' and (j.stop == '1' or j.next_token ~= '') then
    drop_timers(j.id, 'stop', 'handover')
  end
end

local function to_pending(j, delay_ms, reason, fields)
  leave(j)
  fields = fields or {}
  for _, part in ipairs({'state', 'PENDING', 'worker', '', 'update', now}) do fields[#fields + 1] = part end
  j.state = 'PENDING'
  job_event('job_pending', j, reason)  -- names the worker that had it
  save_job(j, fields)
  call('ZADD', K.pending, text(now), j.id)
  set_timer('deadline', j.id, tonumber(j.deadline))
  if delay_ms > 0 then
    set_timer('queue', j.id, now + delay_ms)
  else
    enqueue(j)
  end
end

-- A job enters the queue for the first time.
local function queue_job(j, r, not_before)
  to_pending(j, not_before - now, '')
  if j.sel ~= r.relaxed then
    save_job(j, {'relaxed', r.relaxed})
    set_timer('relax', j.id, math.max(now, not_before) + PREFER_MS)
  end
end
-- A job whose records were just written goes into its queue.
local function queue_new(j, r, not_before)
  dispatch_event('dispatch_created', j, j.dispatch, j.id, '', '')
  queue_job(j, r, not_before)
end

-- `r`: the dispatch's record or that of its last job; `job` may be ''.
local pasts  -- lists of ended ones that grew: cut by flush()
local function end_dispatch(dispatch, r, job, state, reason)
  call('HSET', TAG .. 'd:' .. dispatch, 'state', 'ENDED', 'end', text(now))
  call('EXPIRE', TAG .. 'd:' .. dispatch, KEEP_S)
  if r.payload == '1' or wrote_all(r) then call('EXPIRE', TAG .. 'm:' .. dispatch, KEEP_S) end
  if wrote_all(r) then call('SREM', TAG .. 'r:' .. r.qproject .. ':' .. r.qroom, dispatch) end
  if r.unique == '1' then
    local key = TAG .. 'u:' .. r.qproject .. ':' .. r.qroom .. ':' .. r.qagent
    if call('GET', key) == dispatch then call('DEL', key) end
  end
  if r.stay == '1' then
    call('EXPIRE', TAG .. 'dj:' .. dispatch, KEEP_S)
    call('DEL', TAG .. 'who:' .. dispatch, TAG .. 'seat:' .. dispatch)
    call('SREM', TAG .. 'stay:' .. r.qproject .. ':' .. r.qroom, dispatch)
    drop_timers(dispatch, 'absent')
  end
  local past = TAG .. 'past:' .. r.qproject
  call('ZREM', TAG .. 'live:' .. r.qproject, dispatch)
  call('ZADD', past, r.create, dispatch)
  pasts[past] = PAST_MAX
  local room = r.qproject .. ':' .. r.qroom
  past = TAG .. 'rpast:' .. room
  call('ZREM', TAG .. 'rlive:' .. room, dispatch)
  call('ZADD', past, r.create, dispatch)
  pasts[past] = ROOM_PAST_MAX
  dispatch_event('dispatch_ended', r, dispatch, job, state, reason)
end

-- A running job may have a successor, `next`: another worker that holds a slot under a newer token and is to take it over.
local function has_next(j) return j.next_token ~= '' end
local function is_next(j, worker, token) return has_next(j) and j.next_token == token and j.next_worker == worker end
-- It will not happen: the successor is revoked (its slot is free when it says so), the holder goes on.
local function clear_next(j)
  if not has_next(j) then return end
  local worker, token = j.next_worker, j.next_token
  save_job(j, {'next_worker', '', 'next_token', '', 'paused', ''})
  drop_timers(j.id, 'handover')
  tell(worker, 'revoke', j.id, token)
  tell(j.worker, 'go_on', j.id, j.token)
  job_event('job_kept', j)
end

-- Nothing of an ended job is let into its room any more: brokers tell the room, and keep it until they have. Not needed
-- for an end that the only copy there ever was has said itself (`gone`).
local function fence(j)
  if j.token == '0' then return end
  local highest = math.max(tonumber(j.token), has_next(j) and tonumber(j.next_token) or 0)
  call('HSET', K.fences, j.id, text(highest + 1) .. ' ' .. text(now))
end

local EVENT_OF = {SUCCEEDED = 'job_succeeded', FAILED = 'job_failed', CANCELLED = 'job_cancelled'}
local seat_left
local function finish(j, state, reason, detail, gone)
  if not gone then fence(j) end
  if has_next(j) then
    tell(j.next_worker, 'revoke', j.id, j.next_token)
    save_job(j, {'next_worker', '', 'next_token', ''})
  end
  leave(j)
  save_job(j, {'state', state, 'reason', reason, 'end', now, 'update', now, 'error', detail or j.error})
  job_event(EVENT_OF[state], j, reason)
  if j.checkpoint == '1' or wrote_all(j) then call('DEL', TAG .. 'c:' .. j.id) end
  to_write(TAG .. 'j:' .. j.id, j).keep_s = KEEP_S
  if j.stay == '1' then return seat_left(j, state, reason) end
  end_dispatch(j.dispatch, j, j.id, state, reason)
end

local seat_empty
local promote  -- below
local function lose(j, reason, detail, gone)
  local attempt = tonumber(j.attempt)
  if j.stop == '1' then return finish(j, 'CANCELLED', 'TERMINATED', detail, gone) end
  if j.stay == '1' and seat_empty(j) then return finish(j, 'SUCCEEDED', 'PARTICIPANTS_LEFT', detail, gone) end
  if has_next(j) then return promote(j, reason, detail) end
  if j.policy == 'NEVER' or attempt >= MAX_ATTEMPTS or FINAL[reason] then
    return finish(j, 'FAILED', reason, detail, gone)
  end
  local backoff = attempt <= 1 and 0 or math.min(30, 2 ^ math.min(attempt - 2, 5)) * 1000
  to_pending(j, backoff, reason, {'previous', reason, 'error', detail or '', 'tried', '',
    'deadline', now + tonumber(j.wait)})
end

-- The worker will not have it now. `final`: nobody else is asked. `busy`: it has other jobs, so that its no is none to this
-- one, whose time in the queue is bounded anyway.
local function refuse(j, worker, final, detail, busy)
  local offers = tonumber(j.offers)
  if final or not busy and offers >= MAX_OFFERS then return finish(j, 'FAILED', 'REJECTED', detail) end
  local fields = {'tried', j.tried == '' and worker or j.tried .. ' ' .. worker}
  if busy then fields[3], fields[4] = 'offers', text(offers - 1) end
  to_pending(j, 0, '', fields)
end

-- Saves that a worker has the job. `begun`: this is an attempt, counted once per token, whichever word or report comes first.
local function save_leased(j, w, state, begun, ...)
  local fields = {'state', state, 'worker', w.id, 'update', now, 'token', j.token, 'offers', j.offers, ...}
  if begun and j.counted ~= j.token then
    for _, part in ipairs({'attempt', tonumber(j.attempt) + 1, 'counted', j.token}) do fields[#fields + 1] = part end
  end
  save_job(j, fields)
end
local function to_offered(j, w)
  leave(j)
  save_leased(j, w, 'OFFERED', false)
  set_timer('offer', j.id, now + OFFER_MS)
  job_event('job_offered', j)
end
local function to_assigned(j, w)
  leave(j)
  save_leased(j, w, 'ASSIGNED', true)
  set_timer('start', j.id, now + START_MS)
  job_event('job_assigned', j)
end
local function to_running(j, w)
  leave(j)
  save_leased(j, w, 'RUNNING', true, 'start', now)
  if j.stop == '1' then set_timer('stop', j.id, now + STOP_MS) end
  job_event('job_running', j)
end

-- The job is its successor's from now on. A planned hand-over is no attempt of its own: calls that live long are handed
-- over often.
local function pass_on(j)
  leave(j)
  save_job(j, {'worker', j.next_worker, 'token', j.next_token, 'counted', j.next_token, 'handed', '1', 'next_worker', '',
    'next_token', '', 'update', now})
end
-- The holder is gone before its successor has begun: that one begins at once, with the checkpoint there is.
promote = function(j, reason, detail)
  local paused = j.paused ~= ''
  pass_on(j)
  save_job(j, {'previous', reason, 'error', detail or ''})
  if not paused then save_job(j, {'counted', ''}) end  -- lost, not handed over
  to_assigned(j, load_worker(j.worker))
  tell(j.worker, 'take_over', j.id, j.token)
end
-- A word of the successor.
local function apply_next_word(w, j, kind, reason, detail)
  if kind == 'ACCEPTED' then
    tell(w.id, 'go', j.id, j.next_token)
  elseif kind == 'PREPARED' then
    set_timer('handover', j.id, now + REST_MS)
    tell(j.worker, 'hand_over', j.id, j.token)
  elseif kind == 'STARTED' or (kind == 'ENDED' and GOOD[reason]) then  -- words are cumulative
    local old, old_token = j.worker, j.token
    pass_on(j)
    job_event('job_running', j)
    tell(old, 'revoke', j.id, old_token)
    if kind == 'ENDED' then finish(j, 'SUCCEEDED', reason, detail) end
  else  -- rejected, released, ended badly
    clear_next(j)
  end
  if TERMINAL[j.state] then return 'RECORDED', j.token, j.state, j.reason end
  return 'OK', j.token, j.state, ''
end

-- One word of a worker about (job, token). Returns outcome, newest token, state, reason.
local function apply_word(w, kind, id, token, reason, detail, final)
  if kind == 'ENDED' or kind == 'RELEASED' or kind == 'REJECTED' then release(w, id, token) end
  local j = load_job(id)
  if not j then return 'STALE', '0', '', '' end
  if TERMINAL[j.state] then return 'RECORDED', j.token, j.state, j.reason end
  if is_next(j, w.id, token) then return apply_next_word(w, j, kind, reason, detail) end
  if j.token ~= token or (LEASED[j.state] and j.worker ~= w.id) then return 'STALE', j.token, j.state, '' end
  local leased = LEASED[j.state]
  if kind == 'ACCEPTED' then
    if not leased then return 'STALE', j.token, j.state, '' end
    if j.state == 'OFFERED' then
      to_assigned(j, w)
      tell(w.id, 'go', id, token)
    end
  elseif kind == 'STARTED' then
    if not leased then return 'STALE', j.token, j.state, '' end
    if j.state ~= 'RUNNING' then to_running(j, w) end
  elseif kind == 'PREPARED' then
    if j.state == 'ASSIGNED' then tell(w.id, 'take_over', id, token) end  -- promoted meanwhile
  elseif kind == 'REJECTED' then
    if j.state == 'OFFERED' or j.state == 'ASSIGNED' then
      if j.counted == token then save_job(j, {'attempt', tonumber(j.attempt) - 1, 'counted', ''}) end
      refuse(j, w.id, final == '1', detail, used_by(w) > 0)
    end
  elseif kind == 'ENDED' then
    local gone = leased and tonumber(j.attempt) <= 1 and j.handed ~= '1' and not has_next(j)
    if GOOD[reason] then
      finish(j, 'SUCCEEDED', reason, detail, gone)
    elseif reason == 'TERMINATED' then
      finish(j, 'CANCELLED', reason, detail, gone)
    elseif leased then
      lose(j, reason, detail, gone)
    end
  elseif leased then
    lose(j, 'WORKER_LOST', detail)
  end
  if TERMINAL[j.state] then return 'RECORDED', j.token, j.state, j.reason end
  return 'OK', j.token, j.state, ''
end

-- Asks a job to end: at once unless it runs, else its worker is told and has STOP_MS.
local function request_stop(j)
  if TERMINAL[j.state] then return end
  local worker, token, leased = j.worker, j.token, LEASED[j.state]
  if j.state ~= 'RUNNING' then
    finish(j, 'CANCELLED', 'TERMINATED')
    if leased then tell(worker, 'revoke', j.id, token) end
    return
  end
  clear_next(j)
  if j.stop ~= '1' then
    save_job(j, {'stop', '1', 'update', now})
    set_timer('stop', j.id, now + STOP_MS)
  end
  tell(worker, 'stop', j.id, token)
end

-- The session is over: reservations gone, jobs lost.
local function end_session(w)
  local held = load_hash(TAG .. 'wr:' .. w.id) or {}
  save_worker(w, {'ended', '1'})
  release_all(w)
  call('ZREM', TAG .. 'leases', w.id)
  to_write(TAG .. 'w:' .. w.id, w).keep_s = KEEP_S
  worker_event('worker_ended', w)
  for id, token in pairs(held) do
    local j = load_job(id)
    if j and is_next(j, w.id, token) then
      clear_next(j)
    elseif j and j.token == token and j.worker == w.id and LEASED[j.state] then
      lose(j, 'WORKER_LOST')
    end
  end
end

-- Writes the record of a dispatch, from pairs of the broker (see record.cc). `r.stay`: it has as many jobs as it takes, and
-- keeps what they are made from.
local DISPATCH_FIELDS = {'project', 'agent', 'room', 'room_sid', 'policy', 'priority', 'type', 'identity', 'selector', 'key',
  'agent_id', 'agent_version', 'session', 'trace', 'create'}
local STAYING_FIELDS = {'stay', 'present', 'unique', 'wait', 'relaxed', 'qagent', 'qproject', 'qroom'}
local function stays(r) return r.type ~= '1' or r.present == '1' end
local function write_dispatch(dispatch, id, r)
  r.stay = stays(r) and '1' or ''
  local d = {'job', id, 'state', 'ACTIVE'}
  local function add(fields, all)
    for i = 1, #fields do
      local value = rawget(r, fields[i]) or all and r[fields[i]]
      if value and value ~= '' then d[#d + 1], d[#d + 2] = fields[i], value end
    end
  end
  add(DISPATCH_FIELDS)
  if r.stay == '1' then
    add(STAYING_FIELDS, true)
    call('SADD', TAG .. 'stay:' .. r.qproject .. ':' .. r.qroom, dispatch)
  elseif r.unique == '1' then
    add({'unique'})
  end
  if r.payload ~= '' then
    call('SET', TAG .. 'm:' .. dispatch, r.payload)
    d[#d + 1], d[#d + 2] = 'payload', '1'
  end
  call('HSET', TAG .. 'd:' .. dispatch, spread(d))
  call('ZADD', TAG .. 'live:' .. r.qproject, r.create, dispatch)
  call('ZADD', TAG .. 'rlive:' .. r.qproject .. ':' .. r.qroom, r.create, dispatch)
  if r.key ~= '' then
    call('SET', TAG .. 'k:' .. r.qproject .. ':' .. r.key, dispatch .. ' ' .. r.hash, 'EX', 86400, 'NX')
  end
  if r.unique == '1' then call('SET', TAG .. 'u:' .. r.qproject .. ':' .. r.qroom .. ':' .. r.qagent, dispatch) end
end
-- `r`: the dispatch's fields, with those of this job.
local function write_job(dispatch, id, r)
  seq = seq + 1
  local j = setmetatable({id = id}, JOB)
  jobs[id] = j
  save_job(j, {'dispatch', dispatch, 'project', r.project, 'agent', r.agent, 'room', r.room, 'sel', r.selector,
    'policy', r.policy, 'type', r.type, 'identity', r.identity, 'agent_id', r.agent_id, 'agent_version', r.agent_version,
    'session', r.session, 'score', (9 - tonumber(r.priority)) * 2 ^ 45 + seq, 'wait', r.wait, 'create', r.create,
    'deadline', r.deadline, 'attempt', r.attempt ~= '' and r.attempt or '0', 'stay', r.stay, 'unique', r.unique,
    'payload', r.payload ~= '' and '1' or ''})
  if r.qagent ~= r.agent then save_job(j, {'qagent', r.qagent}) end
  if r.qproject ~= r.project then save_job(j, {'qproject', r.qproject}) end
  if r.qroom ~= r.room then save_job(j, {'qroom', r.qroom}) end
  with_names(j)
  if r.stay == '1' then
    call('ZADD', TAG .. 'dj:' .. dispatch, r.create, id)
    call('HSET', TAG .. 'd:' .. dispatch, 'job', id)
  end
  return j
end
local function write_records(dispatch, id, r)
  write_dispatch(dispatch, id, r)
  local j = write_job(dispatch, id, r)
  if r.stay == '1' then
    call('HSET', TAG .. 'seat:' .. dispatch, r.type ~= '1' and r.identity or '*', id)
    set_timer('absent', dispatch, now + 120000)
  end
  return j
end

-- Dispatches that stay. A seat is what wants a job: a person (publisher and participant dispatches) or '*', anybody (those
-- that are there while a person is). who:AD holds the people, seat:AD the job of each seat: a live one, an ended one whose
-- `again` timer runs, or '-': it ended of its own will and comes back with the person.
local AGAIN_MS = {PARTICIPANTS_LEFT = 1000}  -- the person came back before the agent had left
local WILL = {SHUTDOWN = true, ROOM_CLOSED = true, TERMINATED = true}
local AGAIN_FAILED_MS, ABSENT_MS = 30000, 120000
local JOBS_KEPT = 100

local function seat_of(j) return j.type ~= '1' and j.identity or '*' end
local function seat_wanted(d, dispatch, seat)
  local who = TAG .. 'who:' .. dispatch
  if seat == '*' then return call('EXISTS', who) == 1 end
  local there = call('HGET', who, seat)
  return (there == '2' or (there == '1' and d.type == '3')) and ((d.identity or '') == '' or d.identity == seat)
end
function seat_empty(j)
  local d = load_hash(TAG .. 'd:' .. j.dispatch)
  return not d or d.state == 'ENDED' or d.closing or not seat_wanted(d, j.dispatch, seat_of(j))
end
local function take_seat(dispatch, d, seat)
  local token = mint()
  local id = 'AJ_' .. string.sub(dispatch, 4, 6) .. token
  local r = setmetatable({}, RECORD)
  for field, value in pairs(d) do r[field] = value end
  r.identity = seat ~= '*' and seat or ''
  r.session = 'AS_' .. token
  r.create, r.deadline = text(now), text(now + tonumber(d.wait))
  local j = write_job(dispatch, id, r)
  call('HSET', TAG .. 'seat:' .. dispatch, seat, id)
  local jobs_of = TAG .. 'dj:' .. dispatch
  if call('ZCARD', jobs_of) > JOBS_KEPT then call('ZREMRANGEBYRANK', jobs_of, 0, -JOBS_KEPT - 1) end
  queue_job(j, r, now)
end
-- A job of a dispatch that stays has ended: does its seat want another one?
function seat_left(j, state, reason)
  local dispatch = j.dispatch
  local d, seat = load_hash(TAG .. 'd:' .. dispatch), seat_of(j)
  if not d or d.state == 'ENDED' then return end
  local seats = TAG .. 'seat:' .. dispatch
  if d.closing then
    call('HDEL', seats, seat)
    if call('EXISTS', seats) == 0 then end_dispatch(dispatch, d, j.id, d.closing_state, d.closing) end
  elseif not seat_wanted(d, dispatch, seat) then
    call('HDEL', seats, seat)
  elseif WILL[reason] then
    call('HSET', seats, seat, '-')
  else
    set_timer('again', j.id, now + (AGAIN_MS[reason] or AGAIN_FAILED_MS))
  end
end
-- The dispatch ends with its last job; those that wait end now.
local function close_dispatch(dispatch, d, state, reason)
  call('HSET', TAG .. 'd:' .. dispatch, 'closing', reason, 'closing_state', state)
  call('DEL', TAG .. 'who:' .. dispatch)
  local seats = load_hash(TAG .. 'seat:' .. dispatch) or {}
  local live = {}
  for seat, id in pairs(seats) do
    local j = id ~= '-' and load_job(id)
    if j and not TERMINAL[j.state] then
      live[#live + 1] = j
    else
      if j then drop_timers(id, 'again') end
      call('HDEL', TAG .. 'seat:' .. dispatch, seat)
    end
  end
  if #live == 0 then end_dispatch(dispatch, d, '', state, reason) end
  return live
end
-- Asks one to end; false: there is no such dispatch.
local function stop_staying(dispatch)
  local d = load_hash(TAG .. 'd:' .. dispatch)
  if not d or d.stay ~= '1' then return false end
  if d.state ~= 'ENDED' and not d.closing then
    for _, j in ipairs(close_dispatch(dispatch, d, 'CANCELLED', 'TERMINATED')) do request_stop(j) end
  end
  return true
end
-- One that has no job yet, and ends when no room of its name is seen for a day.
local function write_staying(dispatch, r)
  write_dispatch(dispatch, '', r)
  dispatch_event('dispatch_created', r, dispatch, '', '', '')
  set_timer('absent', dispatch, now + 86400000)
end
local function read_record(pairs_count)
  local r = setmetatable({}, RECORD)
  for _ = 1, pairs_count do
    local field = arg()
    r[field] = arg()
  end
  return with_names(r)
end

-- Matching: the head of each sub-queue, projects in turn, two random workers of which the emptier wins.
local function fits(w, j, sel_parts, ignore_tried)
  if not w or w.epoch ~= EPOCH then return false end
  if w.project ~= '' and w.project ~= j.project then return false end
  if not ignore_tried and string.find(' ' .. j.tried .. ' ', ' ' .. w.id .. ' ', 1, true) then return false end
  for _, part in ipairs(sel_parts) do
    if not string.find(w.facts, '&' .. part .. '&', 1, true) then return false end
  end
  return call('HEXISTS', TAG .. 'wr:' .. w.id, j.id) == 0
end
-- The smallest set of free workers that holds all that may fit, and what to check of each.
local function candidates(agent, j)
  local key, parts = free_key(agent), {}
  local size = call('ZCARD', key)
  if j.sel == '-' then return key, size, parts end
  for part in string.gmatch(j.sel, '[^&]+') do
    if string.sub(part, 1, 2) == 'p.' then part = 'l.' .. string.sub(part, 3) end
    parts[#parts + 1] = part
    local count = call('ZCARD', free_key(agent, part))
    if count < size then key, size = free_key(agent, part), count end
  end
  return key, size, parts
end
local LOOKED_AT = 128
local function pick(agent, j)
  settle()
  local key, size, parts = candidates(agent, j)
  if size == 0 then return nil end
  local two = call('ZRANDMEMBER', key, 2, 'WITHSCORES')
  local second_first = two[4] and tonumber(two[4]) < tonumber(two[2])
  if pool_limit().pack then second_first = two[4] and not second_first end
  for i = 1, #two, 2 do
    local w = load_worker(two[second_first and 4 - i or i])
    if fits(w, j, parts) then return w end
  end
  local parked, first = false, 0
  if size > LOOKED_AT then  -- the next ones each time, so that all are looked at in the end
    first = (call('HINCRBY', K.caps, 'c:' .. agent, 1) * LOOKED_AT) % size
  end
  for _, id in ipairs(call('ZRANGE', key, first, first + LOOKED_AT - 1)) do
    local w = load_worker(id)
    if fits(w, j, parts) then return w end
    parked = parked or (j.tried ~= '' and fits(w, j, parts, true))
  end
  return nil, parked
end
local function lease(j, w)
  local token = mint()
  leave(j)
  j.state, j.token, j.offers = '', token, text(tonumber(j.offers) + 1)
  reserve(w, j.id, token)
  if w.all == '1' then
    to_assigned(j, w)
    tell(w.id, 'go', j.id, token)
  else
    to_offered(j, w)
    tell(w.id, 'offer', j.id, token)
  end
end
-- What became of the first job of one sub-queue: 'done', or nil when nobody fits it.
local function match_head(agent, project, sel)
  local queue = queue_key(agent, project, sel)
  local id = call('ZRANGE', queue, 0, 0)[1]
  local j = id and load_job(id)
  if not j or j.state ~= 'PENDING' then
    if id then call('ZREM', queue, id) end
    refresh_head(agent, project, sel)
    return 'done'
  end
  local w, parked = pick(agent, j)
  if w then
    lease(j, w)
    call('ZADD', TAG .. 'ready:' .. agent, 'XX', 'INCR', 1 / project_limit(project).weight, project)
    return 'done'
  elseif parked then  -- all that could were asked: not a reason to hold up those behind it
    dequeue(j)
    save_job(j, {'tried', ''})
    set_timer('queue', id, now + PARK_MS)
    return 'done'
  end
end
local function at_cap(project)
  local limit = project_limit(project).jobs
  return limit > 0 and cap('j:' .. project) >= limit
end
local function pool_full()
  local most = pool_limit().jobs
  return most > 0 and cap('j') >= most
end
-- A job that was just made, while nobody waits before it and somebody is free, need not go through the queue.
local function lease_at_once(j)
  if hold or call('EXISTS', TAG .. 'ready:' .. j.qagent) == 1 or pool_full() or at_cap(j.qproject) then return false end
  local w = pick(j.qagent, j)
  if not w then return false end
  dispatch_event('dispatch_created', j, j.dispatch, j.id, '', '')
  j.state = 'PENDING'
  job_event('job_pending', j)
  j.state = ''
  lease(j, w)
  return true
end
local PAGE = 64
-- Leases the first job of `agent` that somebody fits. False: there is none.
local function match_one(agent, unfit)
  local ready, first = TAG .. 'ready:' .. agent, 0
  repeat
    local projects = call('ZRANGE', ready, first, first + PAGE - 1)
    for _, project in ipairs(projects) do
      if at_cap(project) then  -- out of the way until one of its jobs ends
        call('SADD', TAG .. 'capped', project .. ' ' .. agent)
        leave_ready(agent, project)
        return true
      end
      for _, sel in ipairs(call('ZRANGE', TAG .. 'subs:' .. agent .. ':' .. project, 0, PAGE - 1)) do
        local head = project .. ' ' .. sel
        if not unfit[head] then
          if match_head(agent, project, sel) then return true end
          unfit[head] = true  -- workers only fill up while we match
        end
      end
    end
    first = first + PAGE
  until #projects < PAGE
  return false
end
local function anybody_free(agent)
  settle()
  return call('EXISTS', free_key(agent)) == 1
end
-- Returns 1 when the limit was reached first: call `match` again.
local function match(limit)
  if hold then return 0 end
  settle()
  local done = 0
  for _, agent in ipairs(touch_list) do
    local unfit = {}
    local waiting = call('EXISTS', TAG .. 'ready:' .. agent) == 1
    while waiting and anybody_free(agent) and not pool_full() and match_one(agent, unfit) do
      done = done + 1
      if done >= limit then return 1 end
    end
  end
  return 0
end
local MATCH_LIMIT = 64

-- Facts that wait, in hashes by job: `held` ends that workers reported in the hold, `stops` that were asked for in it or
-- whose job is missing, `ends` that brokers recorded for jobs that are missing. A missing job may come back while brokers
-- and workers still know it, 60 s.
local function keep_fact(kind, id, fact)
  call('HSET', TAG .. kind, id, fact)
  call('EXPIRE', TAG .. kind, 120)
end
-- An end that was answered as recorded, so it is one.
local function record_end(j, token, state, reason, detail)
  seen_token(token)
  save_job(j, {'token', token})
  finish(j, state, reason, detail)
end
-- What is known of a job that was just put back. Stops wait for the end of the hold.
local function apply_facts(j)
  local fact = call('HGET', TAG .. 'ends', j.id)
  if fact then
    local token, state, reason, detail = string.match(fact, '^(%S*) (%S*) (%S*) (.*)$')
    record_end(j, token, state, reason, detail)
  elseif not hold and call('HEXISTS', TAG .. 'stops', j.id) == 1 then
    request_stop(j)
  end
end

-- The hold: brokers replay, workers report. It lasts GATHER_MS, in which every broker that lives ticks and so is known,
-- then until all known ones are in.
local GATHER_MS = 500
local function all_are_in()
  if now >= tonumber(meta[2]) then return true end
  local f = call('HMGET', KEYS[1], 'hold_from', 'checked_in')
  if now - tonumber(f[1] or '0') < GATHER_MS then return false end
  local arrived = ' ' .. (f[2] or '')
  for _, broker in ipairs(call('ZRANGEBYSCORE', TAG .. 'brokers', text(now - 3000), '+inf')) do
    if not string.find(arrived, ' ' .. broker .. ' ', 1, true) then return false end
  end
  return true
end
-- Held ends first, then stops: an end that happened goes before one that was wished.
local function end_hold()
  call('HDEL', KEYS[1], 'hold_until', 'hold_from', 'checked_in')
  hold = false
  for id, fact in pairs(load_hash(TAG .. 'held') or {}) do
    local worker, kind, token, reason, detail = string.match(fact, '^(%S*) (%S*) (%S*) (%S*) (.*)$')
    local w = load_worker(worker)
    if w then apply_word(w, kind, id, token, reason, detail, '0') end
  end
  call('DEL', TAG .. 'held')
  for _, id in ipairs(call('HKEYS', TAG .. 'stops')) do
    local j = load_job(id)
    if j then request_stop(j) else stop_staying(id) end
  end
  for _, agent in ipairs(call('SMEMBERS', TAG .. 'agents')) do touch(agent) end
end

-- Before and after each script of the library.
local keys_of = {}  -- by KEYS[1]; there are as many as pools
local function begin(keys, args)
  call, spread, KEYS, ARGV, at = redis.call, unpack, keys, args, 2  -- globals are not to be had while Redis loads this
  K = keys_of[KEYS[1]]
  if not K then
    K = {tag = string.sub(KEYS[1], 1, -5)}
    for _, name in ipairs({'limits', 'caps', 'events', 'timers', 'pending', 'fences'}) do K[name] = K.tag .. name end
    keys_of[KEYS[1]] = K
  end
  TAG, EPOCH, OWN = K.tag, ARGV[1], ARGV[2]
  meta = call('HMGET', KEYS[1], 'epoch', 'hold_until', 'hwm', 'seq')
  if meta[1] ~= EPOCH then return false end
  clock = call('TIME')
  now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  now_text = string.format('%.0f', now)
  hwm, seq, hold = tonumber(meta[3] or '0'), tonumber(meta[4] or '0'), meta[2] and true or false
  jobs, workers, unwritten, unwritten_list, messages, touched, touch_list = {}, {}, {}, {}, {}, {}, {}
  pool_limits, project_limits, caps_stored, caps_added = nil, {}, {}, {}
  used_slots, unsettled, pasts = {}, {}, {}
  return true
end
local function flush()
  settle()
  write_all()
  for field, count in pairs(caps_added) do
    if count ~= 0 then call('HINCRBY', K.caps, field, count) end
  end
  for past, most in pairs(pasts) do
    call('ZREMRANGEBYRANK', past, 0, -most - 1)
    call('EXPIRE', past, KEEP_S)
  end
  if hwm ~= tonumber(meta[3] or '0') or seq ~= tonumber(meta[4] or '0') then
    call('HSET', KEYS[1], 'hwm', text(hwm), 'seq', text(seq))
  end
end
local function register(name, script)
  redis.register_function(name, function(keys, args)
    if not begin(keys, args) then return redis.error_reply('STALE_EPOCH ask for the new one') end
    local answer = script()
    flush()
    return answer
  end)
end
