#!lua
-- note_presence.lua: keeps who is in a room, and writes what changed since the last report as events.
-- KEYS: 1 the room's last report, 2 stream of the project's room events.
-- ARGV: 1 version, 2 sid and 3 people (identity=1&…) of the report, escaped; 4 closed (1 or 0); 5 project; 6 room; 7 seconds
-- to keep.  Returns 1, or 0: a newer report was here before.
-- Invariant: every start has its end, every one who joined left before the room's end; the same report twice is one.
local version, sid, people, closed, project, room = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1', ARGV[5], ARGV[6]
local old_version, old_sid, old_people
local old = redis.call('GET', KEYS[1])
if old then old_version, old_sid, old_people = string.match(old, '^(%d+) (%S*) (%S*)$') end
if closed and old_sid ~= sid then return 0 end
if old_sid == sid and tonumber(version) <= tonumber(old_version) then return 0 end

local function unescape(text)
  return (string.gsub(text, '%%(%x%x)', function(digits) return string.char(tonumber(digits, 16)) end))
end
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local function event(kind, of_sid, identity)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', '100000', '*', 'e', table.concat({now, kind, project, '', '', '', room, '', '', '',
    '0', '0', unescape(of_sid), identity and unescape(identity) or ''}, '\n'))
end
local function names(text)
  local found = {}
  for identity in string.gmatch(text, '([^&=]+)=') do found[#found + 1] = identity end
  return found
end
local function set(list)
  local has = {}
  for _, name in ipairs(list) do has[name] = true end
  return has
end

local before, after = names(old_people or ''), closed and {} or names(people)
local replaced = old_sid and old_sid ~= sid  -- whoever held that room is gone without a word
if not old then event('room_started', sid) end
local stays = replaced and {} or set(after)
for _, identity in ipairs(before) do
  if not stays[identity] then event('participant_left', old_sid, identity) end
end
if replaced then
  event('room_finished', old_sid)
  event('room_started', sid)
end
local known = replaced and {} or set(before)
for _, identity in ipairs(after) do
  if not known[identity] then event('participant_joined', sid, identity) end
end
if closed then
  event('room_finished', sid)
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], version .. ' ' .. sid .. ' ' .. people, 'EX', ARGV[7])
end
redis.call('EXPIRE', KEYS[2], ARGV[7])
return 1
