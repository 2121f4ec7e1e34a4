-- health.lua: which engines are down, as any replica saw it.
-- KEYS: 1 parley:{health:KIND}:meta.  ARGV: per engine whose state changed here: name, 1 down or 0 well, ms until it may be
-- asked again, its cool-down in ms, ms for which somebody probes it (0 = nobody).
-- Returns {name, ms until it may be asked, cool-down, ms for which somebody probes it, …} of all that are down.
-- Invariant: the later end of a cool-down stands; only a success takes an engine off the board.
local KEEP_MS = 600000  -- longer than any cool-down: what nobody renews is forgotten
while at < #ARGV do
  local name, down, wait, cool_down, probe = arg(), arg(), number(), number(), number()
  if down == '0' then
    call('HDEL', KEYS[1], name)
  else
    local was = call('HGET', KEYS[1], name)
    local open, cool = string.match(was or '', '^(%d+) (%d+) ')
    open = math.max(tonumber(open or '0'), now + wait)
    cool = math.max(tonumber(cool or '0'), cool_down)
    call('HSET', KEYS[1], name, text(open) .. ' ' .. text(cool) .. ' ' .. text(probe > 0 and now + probe or 0))
  end
end
local board, flat = {}, call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local open, cool, probing = string.match(flat[i + 1], '^(%d+) (%d+) (%d+)$')
  if tonumber(open) + KEEP_MS < now then
    call('HDEL', KEYS[1], flat[i])
  else
    for _, part in ipairs({flat[i], math.max(0, open - now), tonumber(cool), math.max(0, probing - now)}) do board[#board + 1] = part end
  end
end
return board
