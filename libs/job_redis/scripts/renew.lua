-- renew.lua: heartbeats of one broker's workers, as a batch.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, then per worker: worker, connect_seq, load, accepting.
-- Returns {more, {refused worker, …}, messages}.
-- Invariant: only the newest connect of a session that lives renews it.
local refused = {}
while at < #ARGV do
  local id, seq, load, accepting = arg(), arg(), arg(), arg()
  local key = TAG .. 'w:' .. id
  local f = call('HMGET', key, 'seq', 'ended', 'quiet', 'accepting')
  if f[1] ~= seq or f[2] == '1' then
    refused[#refused + 1] = id
  else
    call('ZADD', TAG .. 'leases', text(now), id)
    call('HSET', key, 'load', load, 'accepting', accepting, 'quiet', '0')
    if f[3] == '1' or f[4] ~= accepting then refresh_free(load_worker(id)) end
  end
end
local more = match(MATCH_LIMIT)
return {more, refused, messages}
