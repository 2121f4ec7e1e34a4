-- tick.lua: the net under everything: leases, timers, dead brokers, then matching.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 limit of timers and of sessions.
-- Returns {more, pending, oldest pending ms, sessions ended, jobs expired, idle, messages}.
-- Invariant: a silence of ours (nobody ticked for 3 s) ends no session: leases count anew from its end.
local limit = tonumber(arg())
local beat = tonumber(call('HGET', KEYS[1], 'beat') or '0')
local ended, expired, more = 0, 0, 0
call('ZADD', TAG .. 'brokers', text(now), OWN)
if hold and all_are_in() then end_hold() end

local function check_leases()
  local leases = TAG .. 'leases'
  if now - beat > QUIET_MS then
    for _, id in ipairs(call('ZRANGE', leases, 0, -1)) do call('ZADD', leases, text(now), id) end
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', leases, '-inf', text(now - LEASE_MS), 'LIMIT', 0, limit)) do
    local w = load_worker(id)
    if w then
      end_session(w)
      ended = ended + 1
    else
      call('ZREM', leases, id)
    end
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', leases, '-inf', text(now - QUIET_MS))) do
    if call('HGET', TAG .. 'w:' .. id, 'quiet') ~= '1' then
      local w = load_worker(id)
      save_worker(w, {'quiet', '1'})
      refresh_free(w)
    end
  end
end

local fire = {
  deadline = function(j)
    if j.state ~= 'PENDING' then return end
    finish(j, 'FAILED', 'NO_WORKER_BEFORE_DEADLINE')
    expired = expired + 1
  end,
  queue = function(j)
    if j.state == 'PENDING' then enqueue(j) end
  end,
  relax = function(j)
    if j.state ~= 'PENDING' then return end
    local queued = call('ZSCORE', queue_key(j.qagent, j.qproject, j.sel), j.id)
    dequeue(j)
    save_job(j, {'sel', j.relaxed})
    if queued then enqueue(j) end
  end,
  offer = function(j)
    if j.state ~= 'OFFERED' then return end
    local worker, token = j.worker, j.token  -- its slot is free when it says so
    refuse(j, worker, false, 'the offer was not answered')
    tell(worker, 'revoke', j.id, token)
  end,
  start = function(j)
    if j.state ~= 'ASSIGNED' then return end
    local worker, token = j.worker, j.token
    lose(j, 'START_TIMEOUT')
    tell(worker, 'revoke', j.id, token)
  end,
  handover = clear_next,
  stop = function(j)
    if j.state ~= 'RUNNING' or j.stop ~= '1' then return end
    local worker, token = j.worker, j.token
    finish(j, 'CANCELLED', 'TERMINATED')
    tell(worker, 'revoke', j.id, token)
  end,
}

function fire.again(j)
  local dispatch, seat = j.dispatch, seat_of(j)
  local d = load_hash(TAG .. 'd:' .. dispatch)
  if not d or d.state == 'ENDED' or d.closing or call('HGET', TAG .. 'seat:' .. dispatch, seat) ~= j.id then return end
  if seat_wanted(d, dispatch, seat) then
    take_seat(dispatch, d, seat)
  else
    call('HDEL', TAG .. 'seat:' .. dispatch, seat)
  end
end
-- No room server has said for long that the room is there.
local function absent(dispatch)
  local d = load_hash(TAG .. 'd:' .. dispatch)
  if not d or d.state == 'ENDED' or d.closing then return end
  for _, j in ipairs(close_dispatch(dispatch, d, 'SUCCEEDED', 'ROOM_CLOSED')) do
    if j.state == 'PENDING' then finish(j, 'SUCCEEDED', 'ROOM_CLOSED') end
  end
end

if not hold then
  call('HSET', KEYS[1], 'beat', text(now))
  hwm = math.max(hwm, clock[1] * 1000000 + clock[2])
  for _, broker in ipairs(call('ZRANGEBYSCORE', TAG .. 'brokers', '-inf', text(now - 3000))) do
    call('DEL', TAG .. 'inbox:' .. broker)
    call('ZREM', TAG .. 'brokers', broker)
  end
  check_leases()
  local due = call('ZRANGEBYSCORE', K.timers, '-inf', text(now), 'LIMIT', 0, limit)
  if #due == limit then more = 1 end
  for _, name in ipairs(due) do
    call('ZREM', K.timers, name)
    local kind, id = string.match(name, '^(%l+):(.*)$')
    local j = kind ~= 'absent' and load_job(id)
    if j then fire[kind](j) elseif kind == 'absent' then absent(id) end
  end
  for _, agent in ipairs(call('SMEMBERS', TAG .. 'agents')) do touch(agent) end
  if match(MATCH_LIMIT) == 1 then more = 1 end
end
local oldest = call('ZRANGE', K.pending, 0, 0, 'WITHSCORES')
local pending = call('ZCARD', K.pending)
local idle = not hold and pending == 0 and call('EXISTS', K.timers, TAG .. 'leases') == 0
return {more, pending, oldest[2] and now - tonumber(oldest[2]) or 0, ended, expired, idle and 1 or 0, messages}
