#include "session/history.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "session/text.h"

namespace parley::session {
namespace {

constexpr char kBefore[] = "What was said before you took over, in short: ";

size_t Size(const ChatItem& item) {
  return item.text.size() + item.summary.size() + item.arguments_json.size() + item.name.size() +
         item.call_id.size() + 64;
}

}  // namespace

uint64_t History::Add(ChatItem item) {
  bytes_ += Size(item);
  items_.push_back(std::move(item));
  numbers_.push_back(next_);
  Trim();
  return next_++;
}

const ChatItem* History::Find(uint64_t number) const {
  const auto found = std::lower_bound(numbers_.begin(), numbers_.end(), number);
  if (found == numbers_.end() || *found != number) return nullptr;
  return &items_[static_cast<size_t>(found - numbers_.begin())];
}

void History::SetText(uint64_t number, std::string text, bool interrupted) {
  const auto found = std::lower_bound(numbers_.begin(), numbers_.end(), number);
  if (found == numbers_.end() || *found != number) return;
  ChatItem& item = items_[static_cast<size_t>(found - numbers_.begin())];
  bytes_ -= Size(item);
  item.text = std::move(text);
  item.interrupted = interrupted;
  bytes_ += Size(item);
}

void History::SetSummary(uint64_t number, std::string summary) {
  const auto found = std::lower_bound(numbers_.begin(), numbers_.end(), number);
  if (found == numbers_.end() || *found != number) return;
  ChatItem& item = items_[static_cast<size_t>(found - numbers_.begin())];
  bytes_ += summary.size() - item.summary.size();
  item.summary = std::move(summary);
}

void History::Remove(uint64_t number) {
  const auto found = std::lower_bound(numbers_.begin(), numbers_.end(), number);
  if (found == numbers_.end() || *found != number) return;
  const auto at = found - numbers_.begin();
  bytes_ -= Size(items_[static_cast<size_t>(at)]);
  items_.erase(items_.begin() + at);
  numbers_.erase(found);
}

const ChatItem* History::LastUserMessage() const {
  if (items_.empty()) return nullptr;
  const ChatItem& last = items_.back();
  return last.kind == ChatItem::Kind::kMessage && last.role == "user" ? &last : nullptr;
}

bool History::OwesAnswer() const {
  return LastUserMessage() != nullptr ||
         (!items_.empty() && items_.back().kind == ChatItem::Kind::kHandoff);
}

void History::ExtendLastUserMessage(const std::string& text) {
  SetText(numbers_.back(), JoinText(items_.back().text, text), false);
}

std::vector<ChatItem> History::Prompt(const std::string& instructions, const std::string& extra,
                                      Context context) const {
  std::vector<ChatItem> prompt;
  prompt.reserve(items_.size() + 2);
  if (!instructions.empty()) prompt.push_back({.role = "system", .text = instructions});
  size_t first = 0;
  if (context != Context::kWhole) {
    const auto is_handoff = [](const ChatItem& item) {
      return item.kind == ChatItem::Kind::kHandoff;
    };
    const auto is_user = [](const ChatItem& item) {
      return item.kind == ChatItem::Kind::kMessage && item.role == "user";
    };
    const auto handoff = std::find_if(items_.rbegin(), items_.rend(), is_handoff);
    const bool summed = handoff != items_.rend() && !handoff->summary.empty();
    const auto user = std::find_if(handoff, items_.rend(), is_user);
    if (context == Context::kSummary && summed) {
      prompt.push_back({.role = "system", .text = kBefore + handoff->summary});
    }
    if (user != items_.rend() && (summed || context == Context::kFresh))
      first = static_cast<size_t>(items_.rend() - user) - 1;
  }
  std::copy_if(items_.begin() + static_cast<std::ptrdiff_t>(first), items_.end(),
               std::back_inserter(prompt), [](const ChatItem& item) {
                 // A message without words was heard, and its transcript has not come.
                 return item.kind != ChatItem::Kind::kHandoff &&
                        (item.kind != ChatItem::Kind::kMessage || !item.text.empty());
               });
  if (!extra.empty()) prompt.push_back({.role = "system", .text = extra});
  return prompt;
}

std::vector<ChatItem> History::LastTurn(const std::string& instructions,
                                        const std::string& extra) const {
  std::vector<ChatItem> prompt = Prompt(instructions, extra);
  const auto user = std::find_if(prompt.rbegin(), prompt.rend(),
                                 [](const ChatItem& item) { return item.role == "user"; });
  auto first = prompt.begin();
  if (!instructions.empty() && first != prompt.end()) ++first;
  if (user != prompt.rend()) prompt.erase(first, std::prev(user.base()));
  return prompt;
}

void History::Trim() {
  const auto drop = [this] {
    bytes_ -= Size(items_.front());
    items_.pop_front();
    numbers_.pop_front();
  };
  while (items_.size() > 1 && (items_.size() > kMaxItems || bytes_ > kMaxBytes)) {
    drop();
    while (items_.size() > 1 && items_.front().kind != ChatItem::Kind::kMessage) drop();
  }
}

}  // namespace parley::session
