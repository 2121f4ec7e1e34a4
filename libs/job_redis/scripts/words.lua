-- words.lua: what workers say about their jobs.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, then per word: worker, kind, job, token, reason, error, final.
-- Returns {more, {outcome, newest token, state, reason, …}, messages}.
-- HELD: its report of this epoch is still to come and says it all, or the hold is on.
-- Invariant: an older token changes no job; a slot is freed by the word for its (job, token) only.
local verdicts = {}
while at < #ARGV do
  local w = load_worker(arg())
  local kind, id, token, reason, detail, final = arg(), arg(), arg(), arg(), arg(), arg()
  local outcome, newest, state, why = 'STALE', '0', '', ''
  if hold or not w or w.epoch ~= EPOCH then
    outcome = 'HELD'
  else
    outcome, newest, state, why = apply_word(w, kind, id, token, reason, detail, final)
  end
  for _, part in ipairs({outcome, newest, state, why}) do verdicts[#verdicts + 1] = part end
end
local more = match(MATCH_LIMIT)
return {more, verdicts, messages}
