#include "job_redis/webhook_cursors.h"

#include "base/status.h"
#include "job_redis/keys.h"

namespace parley::job {
namespace {

// ARGV: 1 owner, 2 lease ms, 3 position of a new webhook. Returns the position, or nil: another
// broker's. Invariant: one owner at a time while it keeps calling.
constexpr redis::Script kTake = {"webhook_take.lua", R"lua(
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local f = redis.call('HMGET', KEYS[1], 'owner', 'until', 'position')
if f[1] and f[1] ~= ARGV[1] and tonumber(f[2]) > now then return false end
local position = f[3] or ARGV[3]
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', string.format('%.0f', now + ARGV[2]), 'position', position)
return position
)lua"};

// ARGV: 1 owner, 2 lease ms, 3 position. Returns 1, or 0: another broker's by now.
// Invariant: only the owner moves the position.
constexpr redis::Script kAdvance = {"webhook_advance.lua", R"lua(
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ARGV[2]), 'position', ARGV[3])
return 1
)lua"};

// ARGV: 1 owner. Invariant: another's lease is left alone.
constexpr redis::Script kRelease = {"webhook_release.lua", R"lua(
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then redis.call('HSET', KEYS[1], 'until', '0') end
return 1
)lua"};

std::string KeyOf(std::string_view pool, std::string_view webhook) {
  return keys::PoolKeys(pool).webhook(webhook);
}

}  // namespace

WebhookCursors::WebhookCursors(redis::Pool& redis, std::string owner, absl::Duration lease)
    : redis_(redis),
      owner_(std::move(owner)),
      lease_ms_(std::to_string(absl::ToInt64Milliseconds(lease))) {}

absl::StatusOr<std::optional<std::string>> WebhookCursors::Take(std::string_view pool,
                                                                std::string_view webhook,
                                                                std::string_view start) {
  PARLEY_ASSIGN_OR_RETURN(
      const redis::Reply reply,
      redis_.Eval(kTake, {KeyOf(pool, webhook)}, {owner_, lease_ms_, std::string(start)}));
  if (reply.nil()) return std::nullopt;
  return reply.text;
}

absl::StatusOr<bool> WebhookCursors::Advance(std::string_view pool, std::string_view webhook,
                                             std::string_view position) {
  PARLEY_ASSIGN_OR_RETURN(
      const redis::Reply reply,
      redis_.Eval(kAdvance, {KeyOf(pool, webhook)}, {owner_, lease_ms_, std::string(position)}));
  return reply.integer == 1;
}

absl::Status WebhookCursors::Release(std::string_view pool, std::string_view webhook) {
  return redis_.Eval(kRelease, {KeyOf(pool, webhook)}, {owner_}).status();
}

}  // namespace parley::job
