#pragma once
// The route table of a server: patterns, parameters, and which methods a path has.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http/server.h"

namespace parley::http {

class Routes {
 public:
  void Add(std::string_view method, std::string_view pattern, Handler handler, bool inline_run);

  struct Match {
    const Handler* handler = nullptr;  // null: no route
    bool inline_run = false;
    std::vector<std::pair<std::string, std::string>> params;
    std::string allow;  // methods of the path when the method does not fit, e.g. "GET, HEAD"
  };
  // First match wins. HEAD is served by GET routes.
  Match Find(std::string_view method, std::string_view path) const;
  std::vector<std::pair<std::string, std::string>> List() const;

 private:
  struct Route {
    std::string method;
    std::string pattern;
    std::vector<std::string> segments;
    Handler handler;
    bool inline_run = false;
  };
  std::vector<Route> routes_;
};

}  // namespace parley::http
