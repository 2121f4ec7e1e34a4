#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "session/types.h"

namespace parley::session {

// What has been said and done, oldest first. Bounded: the oldest items make room, a tool's result
// never outlives its call.
class History {
 public:
  static constexpr size_t kMaxItems = 500;
  static constexpr size_t kMaxBytes =
      size_t{160} * 1024;  // a checkpoint holds it with room to spare

  // Returns a number that names the item for as long as it is kept.
  uint64_t Add(ChatItem item);
  // What the item says; null when it is gone.
  const ChatItem* Find(uint64_t number) const;
  // No effect on an item that is gone.
  void SetText(uint64_t number, std::string text, bool interrupted);
  void Remove(uint64_t number);
  // The last item, when it is what `user` said; else null.
  const ChatItem* LastUserMessage() const;
  // The user, or an agent that handed over, has the last word.
  bool OwesAnswer() const;
  void ExtendLastUserMessage(const std::string& text);  // which there must be

  const std::deque<ChatItem>& items() const { return items_; }
  // No effect on an item that is gone.
  void SetSummary(uint64_t number, std::string summary);
  // As a prompt: instructions first, then the items but for handoffs and messages without words,
  // then `extra` instructions for this answer alone. Unless `context` is whole, items begin with
  // what the user said last before the latest handoff, after its summary.
  std::vector<ChatItem> Prompt(const std::string& instructions, const std::string& extra,
                               Context context = Context::kWhole) const;
  // The same of what the user said last, and of what came of it.
  std::vector<ChatItem> LastTurn(const std::string& instructions, const std::string& extra) const;

 private:
  void Trim();
  std::deque<ChatItem> items_;
  std::deque<uint64_t> numbers_;
  uint64_t next_ = 1;
  size_t bytes_ = 0;
};

}  // namespace parley::session
