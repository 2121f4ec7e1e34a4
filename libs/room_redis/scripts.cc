#include "room_redis/scripts.h"

namespace parley::room_redis {

// take_room.lua: a room belongs to the first live replica that asks.
// ARGV: 1 replica id, 2 media_url, 3 lease ms, 4 room, 5 summary. Returns {1, own url, heritage}
// taken or held already, {0, url, ''} another live replica holds it. The heritage is the summary of
// a holder that died less than a minute ago, else ''.
// Invariant: a room has one holder; a holder whose lease lives is never robbed, except by its own
// next run (same media_url).
const redis::Script kTakeRoom = {"take_room.lua", R"lua(
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local holder = redis.call('HGET', KEYS[2], ARGV[4])
local heritage = ''
if holder and holder ~= ARGV[1] then
  local lease = redis.call('HGET', KEYS[1], holder)
  if lease then
    local ends, url = string.match(lease, '^(%d+) (.*)$')
    if tonumber(ends) > now and url ~= ARGV[2] then return {0, url, ''} end
    if tonumber(ends) + 60000 > now then
      heritage = redis.call('HGET', KEYS[3], ARGV[4]) or ''
    end
  end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now + ARGV[3], ARGV[2]))
redis.call('HSET', KEYS[2], ARGV[4], ARGV[1])
if holder ~= ARGV[1] and heritage == '' then redis.call('HSET', KEYS[3], ARGV[4], ARGV[5]) end
return {1, ARGV[2], heritage}
)lua"};

// holder.lua: who holds a room. ARGV: 1 room. Returns the media_url, or nil.
const redis::Script kHolder = {"holder.lua", R"lua(
local holder = redis.call('HGET', KEYS[2], ARGV[1])
if not holder then return false end
local lease = redis.call('HGET', KEYS[1], holder)
if not lease then return false end
local time = redis.call('TIME')
local ends, url = string.match(lease, '^(%d+) (.*)$')
if tonumber(ends) <= time[1] * 1000 + math.floor(time[2] / 1000) then return false end
return url
)lua"};

// free_rooms.lua: rooms are over. ARGV: 1 replica id, 2… rooms. Returns how many were freed.
// Invariant: only the holder frees a room.
const redis::Script kFreeRooms = {"free_rooms.lua", R"lua(
local freed = 0
for i = 2, #ARGV do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[1] then
    redis.call('HDEL', KEYS[2], ARGV[i])
    redis.call('HDEL', KEYS[3], ARGV[i])
    freed = freed + 1
  end
end
return freed
)lua"};

// heartbeat.lua: renews a replica's lease and its rooms' summaries; ends the lease of its former
// run (same media_url); forgets rooms of replicas gone for a minute. ARGV: 1 replica id, 2
// media_url, 3 lease ms, 4… room, summary, room, summary, … Returns the rooms that a live other
// replica holds. Invariant: as take_room.lua.
const redis::Script kHeartbeat = {"heartbeat.lua", R"lua(
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now + ARGV[3], ARGV[2]))
local live, gone, some_gone = {}, {}, false
local replicas = redis.call('HGETALL', KEYS[1])
for i = 1, #replicas, 2 do
  local ends, url = string.match(replicas[i + 1], '^(%d+) (.*)$')
  ends = tonumber(ends)
  if replicas[i] == ARGV[1] or (ends > now and url ~= ARGV[2]) then
    live[replicas[i]] = true
  elseif ends > now then
    redis.call('HSET', KEYS[1], replicas[i], string.format('%.0f %s', now, url))
  elseif ends + 60000 < now then
    gone[replicas[i]] = true
    some_gone = true
    redis.call('HDEL', KEYS[1], replicas[i])
  end
end
local lost = {}
for i = 4, #ARGV, 2 do
  local holder = redis.call('HGET', KEYS[2], ARGV[i])
  if holder and holder ~= ARGV[1] and live[holder] then
    lost[#lost + 1] = ARGV[i]
  else
    if holder ~= ARGV[1] then redis.call('HSET', KEYS[2], ARGV[i], ARGV[1]) end
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  end
end
if some_gone then
  local holders = redis.call('HGETALL', KEYS[2])
  for i = 1, #holders, 2 do
    if gone[holders[i + 1]] then
      redis.call('HDEL', KEYS[2], holders[i])
      redis.call('HDEL', KEYS[3], holders[i])
    end
  end
end
return lost
)lua"};

// list.lua: the rooms of live replicas. Returns room, media_url, summary, room, …
const redis::Script kList = {"list.lua", R"lua(
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local urls = {}
local replicas = redis.call('HGETALL', KEYS[1])
for i = 1, #replicas, 2 do
  local ends, url = string.match(replicas[i + 1], '^(%d+) (.*)$')
  if tonumber(ends) > now then urls[replicas[i]] = url end
end
local rooms = {}
local holders = redis.call('HGETALL', KEYS[2])
for i = 1, #holders, 2 do
  local url = urls[holders[i + 1]]
  if url then
    rooms[#rooms + 1] = holders[i]
    rooms[#rooms + 1] = url
    rooms[#rooms + 1] = redis.call('HGET', KEYS[3], holders[i]) or ''
  end
end
return rooms
)lua"};

// leave.lua: a replica ends in good order; its rooms and its lease go. ARGV: 1 replica id, 2
// media_url, 3… rooms that go on elsewhere: they are left as those of a replica that died just now.
// Returns how many rooms were freed. Invariant: others' rooms are left alone.
const redis::Script kLeave = {"leave.lua", R"lua(
local goes_on = {}
for i = 3, #ARGV do goes_on[ARGV[i]] = true end
local freed, left = 0, false
local holders = redis.call('HGETALL', KEYS[2])
for i = 1, #holders, 2 do
  if holders[i + 1] == ARGV[1] then
    if goes_on[holders[i]] then
      left = true
    else
      redis.call('HDEL', KEYS[2], holders[i])
      redis.call('HDEL', KEYS[3], holders[i])
      freed = freed + 1
    end
  end
end
if left then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now, ARGV[2]))
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return freed
)lua"};

}  // namespace parley::room_redis
