#pragma once
#include <absl/status/statusor.h>

#include "parley/llm/v1/llm.pb.h"
#include "speech/llm.h"

namespace parley {

// History and tools, without a model. InvalidArgument: an item without content, too much of it.
absl::StatusOr<speech::ChatPrompt> ToPrompt(const llm::v1::ChatRequest& request);
absl::StatusOr<speech::ChatItem> ToItem(const llm::v1::ChatItem& item);  // the same of one item
speech::ChatConfig ToConfig(const llm::v1::ModelConfig& model);
llm::v1::ChatResponse ToProto(speech::ChatPiece piece);
llm::v1::ChatResponse ToProto(const speech::ChatDone& done, std::string_view engine);

}  // namespace parley
