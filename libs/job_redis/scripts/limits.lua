-- limits.lua: what the operator allows in this pool (keys.yaml and the brokers' configuration).
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 jobs at once in the pool, 4 jobs that may wait in it (0 = any
-- number), 5 pack (1 or 0), then per project: project, weight, jobs at once, jobs that may wait.  Returns {more, messages}.
-- Invariant: what was here before is replaced; what waited at a cap is looked at again.
local fields = {'jobs', arg(), 'queued', arg(), 'pack', arg()}
while at < #ARGV do
  local project = arg()
  for _, kind in ipairs({'w:', 'j:', 'q:'}) do
    fields[#fields + 1] = kind .. project
    fields[#fields + 1] = arg()
  end
end
call('DEL', K.limits)
call('HSET', K.limits, spread(fields))
uncap(nil)
local more = match(MATCH_LIMIT)
return {more, messages}
