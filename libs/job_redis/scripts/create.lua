-- create.lua: a dispatch and its job, durable and queued, then matched.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 dispatch, 4 job, 5 not before (ms since 1970, 0 = now),
-- 6 count of pairs, then field, value … (see record.cc).
-- Returns {CREATED | EXISTS | KEY_REUSED | HOLD | OVER_SELECTORS | OVER_QUOTA, dispatch, more, messages}.
-- Invariant: one key, one dispatch. Ids are chosen before the call: a retry is the same create.
local dispatch, id, not_before, pairs_count = arg(), arg(), tonumber(arg()), tonumber(arg())
local r = read_record(pairs_count)
if call('EXISTS', TAG .. 'd:' .. dispatch) == 1 then return {'EXISTS', dispatch, 0, messages} end
if r.key ~= '' then
  local stored = call('GET', TAG .. 'k:' .. r.qproject .. ':' .. r.key)
  if stored then
    local known, hash = string.match(stored, '^(%S+) (%S+)$')
    return {hash == r.hash and 'EXISTS' or 'KEY_REUSED', known, 0, messages}
  end
end
if hold then return {'HOLD', dispatch, 0, messages} end
local subs = TAG .. 'subs:' .. r.qagent .. ':' .. r.qproject
if call('ZCARD', subs) >= 64 and not call('ZSCORE', subs, r.selector) then return {'OVER_SELECTORS', dispatch, 0, messages} end
local most, all = project_limit(r.qproject).queued, pool_limit().queued
if (most > 0 and tonumber(call('HGET', TAG .. 'caps', 'q:' .. r.qproject) or '0') >= most)
  or (all > 0 and call('ZCARD', TAG .. 'pending') >= all) then
  return {'OVER_QUOTA', dispatch, 0, messages}
end

r.create, r.deadline = text(now), text(math.max(now, not_before) + tonumber(r.wait))
local j = write_records(dispatch, id, r)
queue_new(j, r, not_before)
local more = match(MATCH_LIMIT)
return {'CREATED', dispatch, more, messages}
