// parley stt, parley tts: the engines, tried alone
#include "speech.h"

#include <fmt/format.h>

#include <fstream>
#include <memory>

#include "audio/wav.h"
#include "base/ids.h"
#include "base/status.h"
#include "command.h"
#include "files.h"

namespace parley::cli {
namespace {

struct Recognition {
  std::string wav;
  std::string engine = "pocketsphinx";
  std::string grammar;  // path
};

absl::Status Recognize(const Command& command, const Recognition& wish) {
  // Read here first: a broken file is named by its path, without asking anybody.
  PARLEY_RETURN_IF_ERROR(audio::ReadWav(wish.wav).status());
  PARLEY_ASSIGN_OR_RETURN(const std::string wav, ReadFile(wish.wav));
  std::string grammar;
  if (!wish.grammar.empty()) {
    PARLEY_ASSIGN_OR_RETURN(grammar, ReadFile(wish.grammar));
  }
  const std::string border = "parley-" + RandomHex(16);
  const auto part = [&border](std::string_view name, std::string_view extra,
                              std::string_view value) {
    return fmt::format("--{}\r\nContent-Disposition: form-data; name=\"{}\"{}\r\n\r\n{}\r\n",
                       border, name, extra, value);
  };
  std::string body = part("model", "", wish.engine);
  if (!grammar.empty()) body += part("grammar", "", grammar);
  body += part("file", "; filename=\"speech.wav\"\r\nContent-Type: audio/wav", wav);
  body += "--" + border + "--\r\n";
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const std::string answer,
                          api.Send("POST", "/v1/audio/transcriptions",
                                   "multipart/form-data; boundary=" + border, std::move(body)));
  const Json json = Json::parse(answer, nullptr, false);
  if (command.output.json) {
    PrintJson(json);
  } else {
    fmt::print("{}\n", json.is_object() ? json.value("text", "") : "");
  }
  return absl::OkStatus();
}

struct Synthesis {
  std::string text;
  std::string out;
  std::string engine = "flite";
  std::string voice = "slt";
};

absl::Status Synthesize(const Command& command, const Synthesis& wish) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const std::string wav, Speak(api, wish.text, wish.engine, wish.voice));
  PARLEY_ASSIGN_OR_RETURN(const audio::Wav parsed, audio::ParseWav(wav));
  std::ofstream file(wish.out, std::ios::binary);
  file << wav;
  if (!file.flush()) return InvalidArgument("cannot write {}", wish.out);
  const double seconds =
      static_cast<double>(parsed.samples.size()) / parsed.channels / parsed.rate_hz;
  if (command.output.json) {
    PrintJson({{"file", wish.out}, {"seconds", seconds}, {"rateHz", parsed.rate_hz}});
  } else if (!command.output.quiet) {
    fmt::print("{}: {:.1f} s at {} Hz\n", wish.out, seconds, parsed.rate_hz);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> Speak(Api& api, const std::string& text, const std::string& engine,
                                  const std::string& voice) {
  const Json body = {{"model", engine}, {"voice", voice}, {"input", text}};
  return api.Send("POST", "/v1/audio/speech", "application/json", body.dump());
}

void AddSpeech(CLI::App& root, Command& command) {
  auto recognition = std::make_shared<Recognition>();
  CLI::App* stt = AddCommand(root, command, "stt", "What does a recogniser hear in a WAV file",
                             [&command, recognition] { return Recognize(command, *recognition); });
  stt->add_option("FILE", recognition->wav, "PCM WAV")->required();
  stt->add_option("--engine", recognition->engine, "Recogniser")->capture_default_str();
  stt->add_option("--grammar", recognition->grammar, "JSGF file: listen for nothing else");
  auto synthesis = std::make_shared<Synthesis>();
  CLI::App* tts = AddCommand(root, command, "tts", "Speak a text into a WAV file",
                             [&command, synthesis] { return Synthesize(command, *synthesis); });
  tts->add_option("TEXT", synthesis->text, "What to say")->required();
  tts->add_option("--out", synthesis->out, "WAV file to write")->required();
  tts->add_option("--engine", synthesis->engine, "flite or espeak")->capture_default_str();
  tts->add_option("--voice", synthesis->voice, "Voice of that engine")->capture_default_str();
}

}  // namespace parley::cli
