-- match.lua: goes on where a script's own matching stopped at its limit, or looks everywhere.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker.  Returns {more, messages}.
-- Invariant: no eligible pair is left, or `more` says so.
for _, agent in ipairs(call('SMEMBERS', TAG .. 'agents')) do touch(agent) end
local more = match(MATCH_LIMIT)
return {more, messages}
