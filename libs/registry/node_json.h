#pragma once
#include <nlohmann/json.hpp>

#include "registry/tree.h"

namespace parley::registry {

// A node as JSON. Internal to `registry`.
inline nlohmann::json ToJsonValue(const Node& node) {
  using nlohmann::json;
  switch (node.kind) {
    case Node::Kind::kNull:
      return nullptr;
    case Node::Kind::kBool:
      return node.text == "true";
    case Node::Kind::kNumber:
      return json::parse(node.text, nullptr, false);
    case Node::Kind::kText:
      return node.text;
    case Node::Kind::kList: {
      json list = json::array();
      for (const Node& item : node.items) list.push_back(ToJsonValue(item));
      return list;
    }
    case Node::Kind::kMap: {
      json map = json::object();
      for (size_t i = 0; i < node.items.size(); ++i) map[node.keys[i]] = ToJsonValue(node.items[i]);
      return map;
    }
  }
  return nullptr;
}

}  // namespace parley::registry
