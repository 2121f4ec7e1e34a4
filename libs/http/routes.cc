#include "http/routes.h"

#include <algorithm>
#include <optional>

#include "base/strings.h"

namespace parley::http {
namespace {

using Params = std::vector<std::pair<std::string, std::string>>;

bool IsParameter(std::string_view segment) {
  return segment.size() > 2 && segment.front() == '{' && segment.back() == '}';
}

std::optional<Params> MatchSegments(const std::vector<std::string>& pattern,
                                    const std::vector<std::string>& path) {
  Params params;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const std::string& expected = pattern[i];
    if (IsParameter(expected) && expected[expected.size() - 2] == '*') {
      std::string rest;
      for (size_t j = i; j < path.size(); ++j) rest += (j > i ? "/" : "") + path[j];
      params.emplace_back(expected.substr(1, expected.size() - 3), std::move(rest));
      return params;
    }
    if (i >= path.size()) return std::nullopt;
    if (IsParameter(expected)) {
      if (path[i].empty()) return std::nullopt;
      params.emplace_back(expected.substr(1, expected.size() - 2), path[i]);
    } else if (expected != path[i]) {
      return std::nullopt;
    }
  }
  if (path.size() != pattern.size()) return std::nullopt;
  return params;
}

}  // namespace

void Routes::Add(std::string_view method, std::string_view pattern, Handler handler,
                 bool inline_run) {
  routes_.push_back({std::string(method), std::string(pattern), Split(pattern, '/'),
                     std::move(handler), inline_run});
}

Routes::Match Routes::Find(std::string_view method, std::string_view path) const {
  const std::vector<std::string> segments = Split(path, '/');
  Match match;
  std::vector<std::string> methods;
  for (const Route& route : routes_) {
    std::optional<Params> params = MatchSegments(route.segments, segments);
    if (!params) continue;
    if (route.method == method || (method == "HEAD" && route.method == "GET")) {
      match.handler = &route.handler;
      match.inline_run = route.inline_run;
      match.params = *std::move(params);
      return match;
    }
    methods.push_back(route.method);
    if (route.method == "GET") methods.push_back("HEAD");
  }
  if (methods.empty()) return match;
  methods.push_back("OPTIONS");
  std::sort(methods.begin(), methods.end());
  methods.erase(std::unique(methods.begin(), methods.end()), methods.end());
  for (const std::string& one : methods) match.allow += (match.allow.empty() ? "" : ", ") + one;
  return match;
}

std::vector<std::pair<std::string, std::string>> Routes::List() const {
  std::vector<std::pair<std::string, std::string>> list;
  for (const Route& route : routes_) list.emplace_back(route.method, route.pattern);
  return list;
}

}  // namespace parley::http
