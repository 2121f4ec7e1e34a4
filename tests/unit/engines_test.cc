// Parts of engines that need neither processes nor network.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "engines/espeak/espeak.h"
#include "engines/openai/chat_codec.h"
#include "engines/pocketsphinx/frames.h"
#include "engines/scripted/script.h"
#include "http/sse.h"

namespace parley::engines {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Events(std::string_view stream, size_t piece) {
  http::SseParser parser;
  std::vector<std::string> out;
  for (size_t i = 0; i < stream.size(); i += piece) {
    EXPECT_TRUE(parser.Append(stream.substr(i, piece)));
    while (const auto event = parser.Next()) out.push_back(event->type + "=" + event->data);
  }
  return out;
}

TEST(SseParserTest, EventsComeOutHoweverTheBytesCome) {
  constexpr std::string_view kStream =
      ": hello\r\ndata: one\r\n\r\nevent: tick\ndata:two\ndata: three\nid: 7\n\n\n\ndata\n\nevent: "
      "lost\n\ndata: cut";
  for (const size_t piece : {1U, 2U, 5U, 1000U}) {
    EXPECT_THAT(Events(kStream, piece), ElementsAre("message=one", "tick=two\nthree", "message="));
  }
}

TEST(SseParserTest, EndlessEventsAreRefused) {
  http::SseParser parser;
  const std::string line = "data: " + std::string(100'000, 'x') + "\n";
  bool taken = true;
  for (int i = 0; i < 40 && taken; ++i) {
    taken = parser.Append(line);
    parser.Next();
  }
  EXPECT_FALSE(taken);
}

std::string Chunk(std::string_view delta, std::string_view finish = "null") {
  return fmt::format(R"({{"model":"m-1","choices":[{{"delta":{},"finish_reason":{}}}]}})", delta,
                     finish);
}

TEST(ChatAssemblerTest, TextAndUsage) {
  ChatAssembler answer;
  EXPECT_EQ(*answer.OnChunk(Chunk(R"({"role":"assistant","content":""})")), "");
  EXPECT_EQ(*answer.OnChunk(Chunk(R"({"content":"Good "})")), "Good ");
  EXPECT_EQ(*answer.OnChunk(Chunk(R"({"content":"day"})")), "day");
  EXPECT_EQ(*answer.OnChunk(Chunk("{}", "\"stop\"")), "");
  EXPECT_EQ(*answer.OnChunk(R"({"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,
    "prompt_tokens_details":{"cached_tokens":4}}})"),
            "");
  EXPECT_TRUE(answer.Finish()->empty());
  EXPECT_EQ(answer.done().finish_reason, "stop");
  EXPECT_EQ(answer.done().model, "m-1");
  EXPECT_EQ(answer.done().usage.input_tokens, 9);
  EXPECT_EQ(answer.done().usage.cached_input_tokens, 4);
}

TEST(ChatAssemblerTest, ToolCallsAreAssembledFromTheirDeltas) {
  ChatAssembler answer;
  for (const char* delta :
       {R"({"tool_calls":[{"index":0,"id":"a","function":{"name":"rate","arguments":""}}]})",
        R"({"tool_calls":[{"index":0,"function":{"arguments":"{\"room\":"}}]})",
        R"({"tool_calls":[{"index":1,"id":"b","function":{"name":"now","arguments":""}}]})",
        R"({"tool_calls":[{"index":0,"function":{"arguments":"\"single\"}"}}]})"}) {
    EXPECT_EQ(*answer.OnChunk(Chunk(delta)), "");
  }
  ASSERT_TRUE(answer.OnChunk(Chunk("{}", "\"tool_calls\"")).ok());
  const auto calls = answer.Finish();
  ASSERT_TRUE(calls.ok()) << calls.status();
  ASSERT_EQ(calls->size(), 2u);
  EXPECT_EQ((*calls)[0].arguments_json, R"({"room":"single"})");
  EXPECT_EQ((*calls)[1].call_id, "b");
  EXPECT_EQ((*calls)[1].arguments_json, "{}");
}

TEST(ChatAssemblerTest, BrokenAnswersAreTheProvidersFault) {
  ChatAssembler cut;
  ASSERT_TRUE(cut.OnChunk(Chunk(R"({"content":"half"})")).ok());
  EXPECT_THAT(Message(cut.Finish().status()), HasSubstr("cut short"));
  ChatAssembler bad;
  ASSERT_TRUE(
      bad.OnChunk(
             Chunk(R"({"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{oops"}}]})",
                   "\"stop\""))
          .ok());
  EXPECT_EQ(bad.Finish().status().code(), absl::StatusCode::kUnavailable);
  ChatAssembler odd;
  EXPECT_FALSE(odd.OnChunk("[]").ok());
  const std::string failed(
      Message(odd.OnChunk(R"({"error":{"message":"no answer to 4111","type":"overloaded_error"}})")
                  .status()));
  EXPECT_THAT(failed, HasSubstr("overloaded_error"));
  EXPECT_THAT(failed, Not(HasSubstr("4111"))) << "what people say goes into no error";
  for (const char* chunk : {R"({"choices":[1]})", R"({"choices":[{"delta":{"tool_calls":[1]}}]})",
                            R"({"choices":{},"usage":3})"}) {
    odd.OnChunk(chunk).status().IgnoreError();
  }
}

TEST(ChatCodecTest, HistoryAndToolsAreEncoded) {
  speech::ChatPrompt prompt;
  prompt.config.temperature = 0.5;
  prompt.items = {speech::ChatMessage{"user", "hi"}, speech::ChatToolCall{"1", "a", "{}"},
                  speech::ChatToolCall{"2", "b", "{}"},
                  speech::ChatToolResult{"1", "a", "no", true}};
  prompt.tools = {{"a", "does a", R"({"type":"object"})"}};
  prompt.tool_choice = "a";
  const auto body = EncodeChatRequest(prompt, "m");
  ASSERT_TRUE(body.ok()) << body.status();
  for (const char* part :
       {R"("model":"m")", R"("stream":true)", R"("content":"hi")", R"("temperature":0.5)",
        R"("content":"Error: no")", R"("tool_call_id":"1")",
        R"("tool_choice":{"function":{"name":"a"},"type":"function"})"}) {
    EXPECT_THAT(*body, HasSubstr(part));
  }
  prompt.tools[0].parameters_json = "[";
  EXPECT_THAT(Message(EncodeChatRequest(prompt, "m").status()), HasSubstr("\"a\""));
  prompt.tools.clear();
  prompt.config.temperature = 3;
  EXPECT_EQ(EncodeChatRequest(prompt, "m").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ChatCodecTest, PicturesStopsAndFormsOfAnswersAreEncoded) {
  speech::ChatPrompt prompt;
  prompt.items = {
      speech::ChatMessage{"user",
                          "What is it?",
                          false,
                          {{"data:image/png;base64,AAAA", "low"}, {"https://a.b/c", ""}}}};
  prompt.stop = {"END"};
  prompt.format.kind = speech::ChatFormat::Kind::kJsonObject;
  const auto encoded = [&prompt] {
    const auto body = EncodeChatRequest(prompt, "m");
    EXPECT_TRUE(body.ok()) << body.status();
    return body.value_or("");
  };
  for (const char* part :
       {R"("content":[{"text":"What is it?","type":"text"},)",
        R"({"image_url":{"detail":"low","url":"data:image/png;base64,AAAA"},"type":"image_url"},)",
        R"({"image_url":{"url":"https://a.b/c"},"type":"image_url"}])", R"("stop":["END"])",
        R"("response_format":{"type":"json_object"})"}) {
    EXPECT_THAT(encoded(), HasSubstr(part));
  }
  prompt.format = {};
  EXPECT_THAT(encoded(), Not(HasSubstr("response_format")));
  // A definition's wish; a request's own goes before it.
  prompt.config.options["response_format"] = R"({"name":"rate","schema":{"type":"object"}})";
  EXPECT_THAT(encoded(), HasSubstr(R"("json_schema":{"name":"rate","schema":{"type":"object"}})"));
  prompt.format.kind = speech::ChatFormat::Kind::kJsonObject;
  EXPECT_THAT(encoded(), HasSubstr(R"("response_format":{"type":"json_object"})"));
  prompt.format = {speech::ChatFormat::Kind::kJsonSchema, R"({"name":"x"})"};
  EXPECT_THAT(Message(EncodeChatRequest(prompt, "m").status()), HasSubstr("no schema"));
  prompt.format = {};
  prompt.config.options = {{"parallel_tool_calls", "false"}};
  EXPECT_THAT(encoded(), Not(HasSubstr("parallel_tool_calls"))) << "there are no tools";
  prompt.tools = {{"a", "does a", R"({"type":"object"})"}};
  EXPECT_THAT(encoded(), HasSubstr(R"("parallel_tool_calls":false)"));
  prompt.config.options = {{"temprature", "1"}};
  EXPECT_THAT(Message(EncodeChatRequest(prompt, "m").status()), HasSubstr("temprature"));
}

TEST(ChatCodecTest, StatusesSayWhoseFaultItIs) {
  const absl::Status prompt = ChatError(
      400,
      R"({"error":{"message":"cannot say 4111","code":"too_long","param":"messages[2].content"}})",
      "");
  EXPECT_EQ(prompt.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(prompt), HasSubstr("too_long, messages[2].content"));
  EXPECT_THAT(Message(prompt), Not(HasSubstr("4111")));
  EXPECT_THAT(Message(ChatError(400, R"({"error":{"code":"my number is 1"}})", "")),
              HasSubstr("no reason given"));
  EXPECT_EQ(ChatError(401, "", "").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(ChatError(429, "", "3")).metadata.at("retry_after_ms"), "3000");
  EXPECT_EQ(ChatError(503, "<html>", "").code(), absl::StatusCode::kUnavailable);
}

TEST(FramesTest, FramesComeOutHoweverTheBytesCome) {
  const std::string stream =
      EncodeFrame(FrameType::kReset, "") + EncodeFrame(FrameType::kAudio, "abcd");
  FrameReader reader;
  std::vector<Frame> frames;
  for (const char byte : stream) {
    reader.Append({&byte, 1});
    auto frame = reader.Next();
    ASSERT_TRUE(frame.ok());
    if (frame->has_value()) frames.push_back(**frame);
  }
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[0].type, FrameType::kReset);
  EXPECT_EQ(frames[1].payload, "abcd");
  reader.Append(std::string("\xff\xff\xff\xff", 4));
  EXPECT_FALSE(reader.Next().ok());
}

TEST(FramesTest, PayloadsSurviveTheWay) {
  const DecoderConfig config{true, "#JSGF", {"a b", ""}};
  const auto decoded = DecodeDecoderConfig(EncodeDecoderConfig(config));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->grammar, "#JSGF");
  EXPECT_THAT(decoded->phrases, ElementsAre("a b", ""));
  speech::SttTranscript transcript;
  transcript.text = "go";
  transcript.utterance = 9;
  transcript.words = {{"go", 10, 200, 0.5F}};
  const std::string bytes = EncodeTranscript(transcript);
  EXPECT_EQ(DecodeTranscript(bytes)->words[0].end_ms, 200);
  for (size_t i = 0; i < bytes.size(); ++i)
    EXPECT_FALSE(DecodeTranscript(bytes.substr(0, i)).ok()) << i;
  EXPECT_FALSE(DecodeTranscript(bytes + "x").ok());
  const absl::Status status = WithReason(NotFound("gone"), "LOST");
  EXPECT_EQ(DecodeStatus(EncodeStatus(status)).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(DecodeStatus(EncodeStatus(status))).reason, "LOST");
}

TEST(ScriptTest, ReadsAndRefuses) {
  const auto script = Script::Parse(R"({"stt": {"delay": "20ms", "utterances": ["a"]},
      "llm": {"answers": [{"when": "x", "call": "t", "arguments": {"n": 1}}, {"text": "y"}]}})");
  ASSERT_TRUE(script.ok()) << script.status();
  EXPECT_EQ(script->stt.delay, absl::Milliseconds(20));
  EXPECT_EQ(script->llm.answers[0].arguments_json, R"({"n":1})");
  for (const auto& [json, part] : std::vector<std::pair<std::string, std::string>>{
           {"{", "no JSON"},
           {R"({"x": 1})", "unknown field \"x\""},
           {R"({"stt": {"delay": 5}})", "stt.delay"},
           {R"({"tts": {"sample_rate_hz": 5}})", "tts.sample_rate_hz"},
           {R"({"llm": {"answers": [{"when": "x"}]}})", "either text or call"}}) {
    EXPECT_THAT(Message(Script::Parse(json).status()), HasSubstr(part));
  }
}

TEST(EspeakTest, VoiceTableIsRead) {
  const auto voices = ParseEspeakVoices(
      "Pty Language       Age/Gender VoiceName          File                 Other Languages\n"
      " 5  af              --/M      Afrikaans          gmw/af               \n"
      " 2  en-us           --/M      English_(America)  gmw/en-US            (en 3)\n");
  ASSERT_EQ(voices.size(), 2u);
  EXPECT_EQ(voices[1].voice, "en-us");
  EXPECT_EQ(voices[1].description, "English (America)");
}

}  // namespace
}  // namespace parley::engines
