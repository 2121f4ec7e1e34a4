#include "registry_redis/scripts.h"

namespace parley::registry_redis {

// register.lua: a definition becomes the newest version of its agent, unless it already is.
// ARGV: 1 id, 2 agent_name, 3 content hash, 4 canonical definition, 5 versions kept, 6 changes
// kept, 7 seconds to keep pinned versions. Returns {created, "<version> <record>"}, or {-1, owner}
// when the name is taken ("d <id>", "p"). Invariants: versions of an id rise by one and are never
// given out twice; an agent_name belongs to one definition or to programs; every version has one
// change, in the order of the versions.
const redis::Script kRegister = {"register.lua", R"lua(
local id, name = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner = redis.call('HGET', KEYS[3], name)
if owner and owner ~= 'd ' .. id then
  local program_until = string.match(owner, '^p (%d+)$')
  if not program_until then return {-1, owner} end
  if tonumber(program_until) > now then return {-1, 'p'} end
end
local head = redis.call('HGET', KEYS[1], id)
if head then
  local hash = string.match(head, '^%d+ %d+ %d+ (%x+) ')
  if hash == ARGV[3] then return {0, head} end
end
local version = redis.call('HINCRBY', KEYS[4], id, 1)
local record = string.format('1 %.0f ', now) .. ARGV[3] .. ' ' .. ARGV[4]
for _, old in ipairs(redis.call('HKEYS', KEYS[3])) do
  if old ~= name and redis.call('HGET', KEYS[3], old) == 'd ' .. id then
    redis.call('HDEL', KEYS[3], old)
  end
end
redis.call('HSET', KEYS[3], name, 'd ' .. id)
redis.call('HSET', KEYS[1], id, version .. ' ' .. record)
redis.call('ZADD', KEYS[2], 0, id)
redis.call('HSET', KEYS[7], version, record)
local oldest = version - ARGV[5]
local pushed_out = redis.call('HGET', KEYS[7], oldest)
if pushed_out then
  redis.call('HSET', KEYS[8], oldest, pushed_out)
  redis.call('EXPIRE', KEYS[8], ARGV[7])
  redis.call('HDEL', KEYS[7], oldest)
end
local sequence = redis.call('INCR', KEYS[6])
redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[6], sequence .. '-0', 'id', id, 'version', version)
return {1, version .. ' ' .. record}
)lua"};

// delete.lua: an agent and its versions are gone, its name is free.
// ARGV: 1 id, 2 changes kept, 3 seconds to keep pinned versions. Returns 1 deleted, 0 there is
// none. Invariants: the id's counter stays, so that its versions go on rising; a job that is pinned
// to a version still finds it.
const redis::Script kDelete = {"delete.lua", R"lua(
local id = ARGV[1]
if redis.call('HDEL', KEYS[1], id) == 0 then return 0 end
redis.call('ZREM', KEYS[2], id)
for _, name in ipairs(redis.call('HKEYS', KEYS[3])) do
  if redis.call('HGET', KEYS[3], name) == 'd ' .. id then redis.call('HDEL', KEYS[3], name) end
end
for _, version in ipairs(redis.call('HKEYS', KEYS[7])) do
  redis.call('HSET', KEYS[8], version, redis.call('HGET', KEYS[7], version))
end
redis.call('EXPIRE', KEYS[8], ARGV[3])
redis.call('DEL', KEYS[7])
redis.call('HDEL', KEYS[9], id)
redis.call('DEL', KEYS[10])
local sequence = redis.call('INCR', KEYS[6])
redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[2], sequence .. '-0', 'id', id, 'version', 0)
return 1
)lua"};

// claim_for_program.lua: no definition may take this agent_name for a while.
// ARGV: 1 agent_name, 2 ms. Returns '' done, or "d <id>": a definition has it.
// Invariant: as register.lua.
const redis::Script kClaimForProgram = {"claim_for_program.lua", R"lua(
local owner = redis.call('HGET', KEYS[3], ARGV[1])
if owner and string.sub(owner, 1, 2) == 'd ' then return owner end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[3], ARGV[1], string.format('p %.0f', now + ARGV[2]))
return ''
)lua"};

// deploy.lua: other versions of an agent serve from now on.
// ARGV: 1 id, 2 shares, 3 states kept to go back to, 4… the versions in the shares. Returns
// {1, record}, {0} there is no such agent, {-1, version} it has no such version.
// Invariants: a revision rises with each change; what served before is on top of the list.
const redis::Script kDeploy = {"deploy.lua", R"lua(
local id, shares = ARGV[1], ARGV[2]
if redis.call('HEXISTS', KEYS[1], id) == 0 then return {0} end
for i = 4, #ARGV do
  if redis.call('HEXISTS', KEYS[7], ARGV[i]) == 0 then return {-1, ARGV[i]} end
end
local before = redis.call('HGET', KEYS[9], id) or '1 0 0 0 '
local revision, served = string.match(before, '^1 (%d+) %d+ (.*)$')
if served == shares and revision ~= '0' then return {1, before} end
redis.call('LPUSH', KEYS[10], served)
redis.call('LTRIM', KEYS[10], 0, ARGV[3] - 1)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local record = string.format('1 %.0f %.0f ', revision + 1, now) .. shares
redis.call('HSET', KEYS[9], id, record)
return {1, record}
)lua"};

// roll_back.lua: what served before serves again.
// ARGV: 1 id. Returns {1, record}, {0} there is no such agent, {-1} nothing served before.
// Invariants: as deploy.lua; an agent that was never deployed goes back one version.
const redis::Script kRollBack = {"roll_back.lua", R"lua(
local id = ARGV[1]
local head = redis.call('HGET', KEYS[1], id)
if not head then return {0} end
local before = redis.call('HGET', KEYS[9], id)
local shares = redis.call('LPOP', KEYS[10])
if not shares then
  if before then return {-1} end
  local newest, older = tonumber(string.match(head, '^(%d+) ')), 0
  for _, version in ipairs(redis.call('HKEYS', KEYS[7])) do
    version = tonumber(version)
    if version < newest and version > older then older = version end
  end
  if older == 0 then return {-1} end
  shares = string.format('0 %.0f:100', older)
end
local revision = string.match(before or '1 0 0 0 ', '^1 (%d+) ')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local record = string.format('1 %.0f %.0f ', revision + 1, now) .. shares
redis.call('HSET', KEYS[9], id, record)
return {1, record}
)lua"};

}  // namespace parley::registry_redis
