-- claim.lua: who has a phrase of a project, or who makes it.
-- KEYS: 1 parley:{voice:PROJECT}:meta.  ARGV: 1 phrase, 2 replica, 3 ms for which it may make it.
-- Returns {'ready', id of the recording, replica, address, …} of who keeps it, or {'make', id to give it} (the caller makes it,
-- and nobody else meanwhile), or {'wait', ms at most}.
-- Invariant: a phrase has one maker, until it is published, given up, or its time is over.
local phrase, replica, lease = arg(), arg(), number()
local key = TAG .. (call('HGET', KEYS[1], 'generation') or '0') .. ':' .. phrase
local flat, answer, maker, till, id = call('HGETALL', key), {'ready', ''}, nil, 0, nil
for i = 1, #flat, 2 do
  local field, value = flat[i], flat[i + 1]
  if field == 'maker' then maker = value
  elseif field == 'till' then till = tonumber(value)
  elseif field == 'id' then answer[2] = value
  else
    answer[#answer + 1] = string.sub(field, 3)  -- k:REPLICA
    answer[#answer + 1] = value
  end
end
if #answer > 2 then return answer end
if maker and till > now then return {'wait', till - now} end
id = text(call('HINCRBY', KEYS[1], 'last', 1))
call('HSET', key, 'maker', replica, 'till', text(now + lease), 'id', id)
call('PEXPIRE', key, lease + 60000)
return {'make', id}
