-- renew.lua: heartbeats of one broker's workers, as a batch.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, then per worker: worker, connect_seq, load, accepting.
-- Returns {more, {refused worker, …}, messages, {worker that owes a report, …}}.
-- Invariant: only the newest connect of a session that lives renews it. A session that Redis lost is not refused: its
-- worker, which has not reported in this epoch, is asked to.
local refused, owing = {}, {}
while at < #ARGV do
  local id, seq, load, accepting = arg(), arg(), arg(), arg()
  local key = TAG .. 'w:' .. id
  local f = call('HMGET', key, 'seq', 'ended', 'quiet', 'accepting', 'epoch')
  if f[2] == '1' or (f[1] and tonumber(f[1]) > tonumber(seq)) then
    refused[#refused + 1] = id
  else
    if f[5] ~= EPOCH or f[1] ~= seq then owing[#owing + 1] = id end
    if f[1] then
      call('ZADD', TAG .. 'leases', text(now), id)
      call('HSET', key, 'load', load, 'accepting', accepting, 'quiet', '0')
      if f[3] == '1' or f[4] ~= accepting then
        local w = load_worker(id)
        w.accepting, w.quiet = accepting, '0'
        refresh_free(w)
      end
    end
  end
end
local more = match(MATCH_LIMIT)
return {more, refused, messages, owing}
