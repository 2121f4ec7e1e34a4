// The console page: `/` for browsers, and its files below /console/.
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "api_server/routes.h"

namespace parley::api_server {
namespace {

constexpr char kPage[] = "index.html";

// Everything that the page consists of; nothing else in the folder is served.
const std::map<std::string, const char*>& Kinds() {
  static const std::map<std::string, const char*> kinds = {
      {kPage, "text/html; charset=utf-8"},
      {"console.css", "text/css; charset=utf-8"},
      {"console.js", "text/javascript; charset=utf-8"}};
  return kinds;
}

// The folder that a build or an installation puts beside its programs.
std::filesystem::path Folder(const std::string& configured) {
  if (!configured.empty()) return configured;
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::filesystem::path() : self.parent_path() / "../share/parley/console";
}

std::map<std::string, std::string> ReadFiles(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& [name, kind] : Kinds()) {
    std::ifstream in(folder / name, std::ios::binary);
    std::ostringstream text;
    if (in && text << in.rdbuf()) files[name] = text.str();
  }
  return files;
}

http::Response File(const std::string& name, const std::string& text) {
  http::Response response{200, Kinds().at(name), text, {}};
  response.headers = {
      {"cache-control", "no-cache"},
      {"x-content-type-options", "nosniff"},
      {"referrer-policy", "no-referrer"},
      // It speaks to this server, and to the one that the session's answer names.
      {"content-security-policy",
       "default-src 'self'; connect-src 'self' http: https: ws: wss:; media-src 'self' blob:; "
       "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"}};
  return response;
}

}  // namespace

void AddConsoleRoutes(Backend& backend, std::vector<Route>& routes) {
  const auto files = std::make_shared<const std::map<std::string, std::string>>(
      ReadFiles(Folder(backend.config.console_dir)));
  if (!files->contains(kPage)) {
    backend.context.log().Info("no console page",
                               {{"folder", Folder(backend.config.console_dir).string()}});
  }
  routes.push_back({"GET", "/",
                    "The console page for browsers; for others health, where LiveKit's server "
                    "has it",
                    "", nullptr, 200,
                    [&backend, files](const http::Request& request) {
                      const auto page = files->find(kPage);
                      if (page != files->end() &&
                          request.Header("accept").find("text/html") != std::string_view::npos) {
                        return File(kPage, page->second);
                      }
                      return backend.context.stop_requested()
                                 ? http::Response{406, "text/plain", "Not Ready", {}}
                                 : http::Response{200, "text/plain", "OK", {}};
                    },
                    true});
  routes.push_back({"GET", "/console/{file}", "The console page's files", "", nullptr, 200,
                    [files](const http::Request& request) {
                      const auto file = files->find(request.params.at("file"));
                      if (file == files->end()) {
                        return ErrorResponse(absl::NotFoundError(
                            "the console has no such file; it was perhaps built without npm"));
                      }
                      return File(file->first, file->second);
                    },
                    true});
}

}  // namespace parley::api_server
