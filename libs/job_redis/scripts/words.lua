-- words.lua: what workers say about their jobs.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, then per word: worker, kind, job, token, reason, error, final.
-- Returns {more, {outcome, newest token, state, reason, session, …}, messages}; session: of a job that has ended, what its
-- record says (ToSession in workers.cc), else ''.
-- HELD: its report of this epoch is still to come and says it all, or the hold is on.
-- Invariant: an older token changes no job; a slot is freed by the word for its (job, token) only.
local function session_of(j)
  return j.session .. '\n' .. j.project .. '\n' .. j.room .. '\n' .. j.dispatch .. '\n' .. j.agent .. '\n' .. j.agent_id .. '\n'
    .. j.agent_version .. '\n' .. j.create .. '\n' .. (j.start or '') .. '\n' .. (j['end'] or '')
end
local verdicts = {}
while at < #ARGV do
  local w = load_worker(arg())
  local kind, id, token, reason, detail, final = arg(), arg(), arg(), arg(), arg(), arg()
  local outcome, newest, state, why, session = 'STALE', '0', '', '', ''
  if hold or not w or w.epoch ~= EPOCH then
    outcome = 'HELD'
  else
    outcome, newest, state, why = apply_word(w, kind, id, token, reason, detail, final)
    local over = kind == 'ENDED' and token == newest and TERMINAL[state] and load_job(id)
    if over and over.session ~= '' then session = session_of(over) end
  end
  for _, part in ipairs({outcome, newest, state, why, session}) do verdicts[#verdicts + 1] = part end
end
local more = match(MATCH_LIMIT)
return {more, verdicts, messages}
