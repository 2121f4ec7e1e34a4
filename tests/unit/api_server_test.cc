#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api_server/json.h"
#include "api_server/multipart.h"
#include "api_server/routes.h"
#include "base/status.h"

namespace parley::api_server {
namespace {

using ::testing::HasSubstr;

std::string Text(const absl::Status& status) { return std::string(Message(status)); }

TEST(BodyTest, TakesBothSpellingsAndRefusesTheRest) {
  auto body = Body::Parse(R"({"agentName": "a", "room_name": "r", "n": 3, "m": {"k": "v"}})");
  ASSERT_TRUE(body.ok());
  EXPECT_EQ(body->Text("agent_name"), "a");
  EXPECT_EQ(body->Text("room_name"), "r");
  EXPECT_EQ(body->Integer("n", 0, 0, 9), 3);
  EXPECT_EQ(body->TextMap("m").at("k"), "v");
  EXPECT_TRUE(body->Finish().ok());

  auto unknown = Body::Parse(R"({"agent": "a", "romm": "x"})");
  unknown->Text("agent");
  EXPECT_THAT(Text(unknown->Finish()), HasSubstr("romm is not a field"));
  EXPECT_TRUE(unknown->Finish(true).ok() == false);  // the first error stays
}

TEST(BodyTest, NamesWhatIsWrong) {
  EXPECT_THAT(Text(Body::Parse("[1]").status()), HasSubstr("JSON object"));
  EXPECT_THAT(Text(Body::Parse("{\n\n \"a\": }").status()), HasSubstr("line 3"));
  auto body = Body::Parse(R"({"priority": 12})");
  body->Integer("priority", 5, 0, 9);
  EXPECT_THAT(Text(body->Finish()), HasSubstr("priority must be a whole number from 0 to 9"));
  auto wrong = Body::Parse(R"({"attributes": {"k": 1}})");
  wrong->TextMap("attributes");
  EXPECT_THAT(Text(wrong->Finish()), HasSubstr("attributes"));
  EXPECT_TRUE(Body::Parse("").ok());
}

TEST(ErrorTest, StatusesFollowTheTable) {
  const http::Response response = ErrorResponse(WithReason(
      Unavailable("the store is out of reach"), "STORE_UNAVAILABLE", {{"retry_after_ms", "1500"}}));
  EXPECT_EQ(response.status, 503);
  const Json json = Json::parse(response.body);
  EXPECT_EQ(json["code"], "unavailable");
  EXPECT_EQ(json["meta"]["reason"], "STORE_UNAVAILABLE");
  EXPECT_THAT(response.headers, ::testing::Contains(::testing::Pair("Retry-After", "2")));
  EXPECT_EQ(HttpStatusOf(absl::StatusCode::kUnauthenticated), 401);
  EXPECT_EQ(HttpStatusOf(absl::StatusCode::kAlreadyExists), 409);
  EXPECT_EQ(HttpStatusOf(absl::StatusCode::kFailedPrecondition), 412);
}

constexpr char kType[] = "multipart/form-data; boundary=\"xYz\"";

TEST(MultipartTest, ReadsFieldsAndFiles) {
  const std::string body =
      "--xYz\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\npocketsphinx\r\n"
      "--xYz\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: "
      "audio/wav\r\n\r\nRI\r\nFF\r\n"
      "--xYz\r\nContent-Disposition: form-data; name=empty\r\n\r\n\r\n--xYz--\r\n";
  const auto parts = ParseMultipart(kType, body);
  ASSERT_TRUE(parts.ok()) << parts.status();
  ASSERT_EQ(parts->size(), 3u);
  EXPECT_EQ((*parts)[0].name, "model");
  EXPECT_EQ((*parts)[0].data, "pocketsphinx");
  EXPECT_EQ((*parts)[1].file_name, "a.wav");
  EXPECT_EQ((*parts)[1].data, "RI\r\nFF");
  EXPECT_EQ((*parts)[2].name, "empty");
  EXPECT_EQ((*parts)[2].data, "");
}

TEST(MultipartTest, RefusesWhatIsCutOrNameless) {
  const std::string good =
      "--xYz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--xYz--";
  EXPECT_TRUE(ParseMultipart(kType, good).ok());
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(ParseMultipart(kType, good.substr(0, size)).ok()) << size;
  EXPECT_FALSE(ParseMultipart("application/json", good).ok());
  EXPECT_FALSE(ParseMultipart("multipart/form-data", good).ok());
  EXPECT_FALSE(ParseMultipart(kType, "--xYz\r\nX: y\r\n\r\nb\r\n--xYz--").ok());
}

TEST(BodyTest, BracketsWithoutEndDoNoHarm) {
  const std::string deep = "{\"room_config\":" + std::string(1'000'000, '[');
  EXPECT_THAT(Text(Body::Parse(deep).status()), HasSubstr("nested more than"));
  EXPECT_THAT(Text(Body::Parse(R"({"a": 1e309})").status()), HasSubstr("number out of range"));
  EXPECT_TRUE(Body::Parse(R"({"text": "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["})").ok());
}

// connection-details where no bearer token is needed for the agents of a list.
class OpenTokensTest : public ::testing::Test {
 protected:
  void SetUp() override {
    config_.common.api_key = "APIhotel";
    config_.common.api_secret = "a secret of a hotel";
    config_.open_agents = {"front-desk"};
    config_.open_origins = {"https://hotel.example"};
    auto context = service::Context::Create("api-server", config_.common);
    ASSERT_TRUE(context.ok()) << context.status();
    context_ = *std::move(context);
    backend_ = std::make_unique<Backend>(config_, *context_);
    AddTokenRoutes(*backend_, routes_);
  }
  http::Response Do(const std::string& method, const std::string& body,
                    const std::string& origin = "https://hotel.example") {
    http::Request request;
    request.method = method;
    request.body = body;
    request.headers["origin"] = origin;
    for (const Route& route : routes_) {
      if (route.method == method) return route.handler(request);
    }
    return {};
  }
  static std::string Header(const http::Response& response, std::string_view name) {
    for (const auto& [key, value] : response.headers) {
      if (key == name) return value;
    }
    return "";
  }

  ApiServerConfig config_;
  std::unique_ptr<service::Context> context_;
  std::unique_ptr<Backend> backend_;
  std::vector<Route> routes_;
};

constexpr char kFrontDesk[] = R"({"room_config": {"agents": [{"agent_name": "front-desk"}]}})";

TEST_F(OpenTokensTest, GivesTokensForListedAgentsOnly) {
  const http::Response good = Do("POST", kFrontDesk);
  EXPECT_EQ(good.status, 201) << good.body;
  EXPECT_EQ(Header(good, "Access-Control-Allow-Origin"), "https://hotel.example");
  EXPECT_EQ(Do("POST", kFrontDesk, "https://other.example").status, 401);
  EXPECT_EQ(Do("POST", "{}").status, 403);
  EXPECT_EQ(Do("POST", R"({"roomConfig": {"agents": [{"agentName": "billing"}]}})").status, 403);
}

TEST_F(OpenTokensTest, StrangersCannotChooseTheRoom) {
  for (const char* field : {"room_name", "participantIdentity"}) {
    Json body = Json::parse(kFrontDesk);
    body[field] = "somebody-elses";
    EXPECT_EQ(Do("POST", body.dump()).status, 403) << field;
  }
}

TEST_F(OpenTokensTest, PreflightAllowsListedOriginsOnly) {
  const http::Response listed = Do("OPTIONS", "");
  EXPECT_EQ(listed.status, 204);
  EXPECT_EQ(Header(listed, "Access-Control-Allow-Origin"), "https://hotel.example");
  EXPECT_THAT(Header(listed, "Access-Control-Allow-Headers"), HasSubstr("content-type"));
  EXPECT_EQ(Header(Do("OPTIONS", "", "https://other.example"), "Access-Control-Allow-Origin"), "");
}

}  // namespace
}  // namespace parley::api_server
