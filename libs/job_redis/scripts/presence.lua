-- presence.lua: who is in a room; brings the jobs of the dispatches that stay there.
-- KEYS: 1 parley:{POOL}:meta.  ARGV: 1 epoch, 2 broker, 3 project and 4 room (escaped), 5 room's sid, 6 version of the report,
-- 7 closed (1 or 0), then per person: identity, 1 or (publishing) 2.
-- Returns {more, count of dispatches that stay in the room (-1: the store recovers, say it again), messages}.
-- Invariant: a seat has at most one job that lives; an older report changes nothing.
local project, room, sid, version, closed = arg(), arg(), arg(), arg(), arg() == '1'
local people = {}
while at < #ARGV do
  local identity = arg()
  people[identity] = arg()
end
if hold then return {0, -1, messages} end

local function update(dispatch, d)
  local who, seats = TAG .. 'who:' .. dispatch, TAG .. 'seat:' .. dispatch
  call('DEL', who)
  for identity, what in pairs(people) do call('HSET', who, identity, what) end
  set_timer('absent', dispatch, now + ABSENT_MS)
  local taken = load_hash(seats) or {}
  for seat, id in pairs(taken) do
    if not seat_wanted(d, dispatch, seat) then
      local j = id ~= '-' and load_job(id)
      if j and j.state == 'PENDING' then  -- nobody waits for it any more
        finish(j, 'SUCCEEDED', 'PARTICIPANTS_LEFT')
      elseif not j or TERMINAL[j.state] then
        if j then drop_timers(id, 'again') end
        call('HDEL', seats, seat)
      end
    end
  end
  local function want(seat)
    if not taken[seat] and seat_wanted(d, dispatch, seat) then take_seat(dispatch, d, seat) end
  end
  if d.type == '1' then return want('*') end
  for identity in pairs(people) do want(identity) end
end

local staying = 0
local here = TAG .. 'stay:' .. project .. ':' .. room
for _, dispatch in ipairs(call('SMEMBERS', here)) do
  local d = load_hash(TAG .. 'd:' .. dispatch)
  if not d or d.state == 'ENDED' then
    call('SREM', here, dispatch)
  else
    staying = staying + 1
    local other = d.seen_sid and d.seen_sid ~= sid  -- a room of this name before or after
    local newer = tonumber(version) > tonumber(d.seen or '0')
    if newer and not d.closing and not (closed and other) then
      call('HSET', TAG .. 'd:' .. dispatch, 'seen', version, 'seen_sid', sid)
      if closed then
        for _, j in ipairs(close_dispatch(dispatch, d, 'SUCCEEDED', 'ROOM_CLOSED')) do
          if j.state == 'PENDING' then finish(j, 'SUCCEEDED', 'ROOM_CLOSED') end
        end
      else
        update(dispatch, d)
      end
    end
  end
end
local more = match(MATCH_LIMIT)
return {more, staying, messages}
