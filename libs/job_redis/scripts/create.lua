-- create.lua: dispatches and their jobs, durable and queued, then matched.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, then per dispatch: dispatch, job, not before (ms since 1970, 0 = now),
-- count of pairs, then field, value … (see record.cc).
-- Returns {more, {CREATED | EXISTS | KEY_REUSED | HOLD | OVER_SELECTORS | OVER_QUOTA, dispatch, job's state or '', token,
-- worker, attempt, create ms, deadline ms, …}, messages}.
-- Invariant: one key, one dispatch. Ids are chosen before the call: a retry is the same create.
local function create(dispatch, id, not_before, r)
  if call('EXISTS', TAG .. 'd:' .. dispatch) == 1 then return 'EXISTS', dispatch end
  if r.key ~= '' then
    local stored = call('GET', TAG .. 'k:' .. r.qproject .. ':' .. r.key)
    if stored then
      local known, hash = string.match(stored, '^(%S+) (%S+)$')
      return hash == r.hash and 'EXISTS' or 'KEY_REUSED', known
    end
  end
  if hold then return 'HOLD', dispatch end
  if r.unique == '1' then
    local there = call('GET', TAG .. 'u:' .. r.qproject .. ':' .. r.qroom .. ':' .. r.qagent)
    if there then return 'EXISTS', there end
  end
  local subs = TAG .. 'subs:' .. r.qagent .. ':' .. r.qproject
  if call('ZCARD', subs) >= 64 and not call('ZSCORE', subs, r.selector) then return 'OVER_SELECTORS', dispatch end
  local most, all = project_limit(r.qproject).queued, pool_limit().queued
  if (most > 0 and cap('q:' .. r.qproject) >= most)
    or (all > 0 and call('ZCARD', K.pending) >= all) then
    return 'OVER_QUOTA', dispatch
  end
  r.create, r.deadline = text(now), text(math.max(now, not_before) + tonumber(r.wait))
  if stays(r) then
    write_staying(dispatch, r)
    return 'CREATED', dispatch
  end
  local j = write_records(dispatch, id, r)
  if not_before <= now and lease_at_once(j) then return 'CREATED', dispatch, j end
  queue_new(j, r, not_before)
  return 'CREATED', dispatch, j
end

local outcomes, made = {}, {}
while at < #ARGV do
  local dispatch, id, not_before, pairs_count = arg(), arg(), tonumber(arg()), tonumber(arg())
  local r = read_record(pairs_count)
  local outcome, known, j = create(dispatch, id, not_before, r)
  for _, part in ipairs({outcome, known, '', '0', '', '0', r.create, r.deadline}) do
    outcomes[#outcomes + 1] = part
  end
  made[#made + 1] = j or false
end
local more = match(MATCH_LIMIT)
for i, j in ipairs(made) do
  if j then
    local first = (i - 1) * 8
    outcomes[first + 3], outcomes[first + 4], outcomes[first + 5] = j.state, j.token, j.worker
    outcomes[first + 6] = tostring(j.attempt)
  end
end
return {more, outcomes, messages}
