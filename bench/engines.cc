// scripts/bench engines: what the embedded engines cost and how well they hear. One stream at a
// time, in this process (recognisers and espeak-ng: in children of it), except where memory is
// measured. Besides the recordings of Debian's alsa-utils, people are heard from
//   -- --recordings DIR   (default: PARLEY_TEST_AUDIO): WAV files, and DIR/README.md with a table
//                         row "| NAME.wav | what is said |" for each
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <future>
#include <thread>
#include <utility>

#include "audio/resample.h"
#include "audio/wav.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/strings.h"
#include "engines/espeak/espeak.h"
#include "engines/flite/flite.h"
#include "engines/pocketsphinx/engine.h"
#include "options.h"
#include "procfs.h"
#include "report.h"
#include "speech/cancel.h"
#include "testing/word_errors.h"

namespace parley::bench {
namespace {

constexpr int kHearsHz = 16'000;
constexpr size_t kFrame = kHearsHz / 50;
constexpr const char* kAlsa = "/usr/share/sounds/alsa/";
// What the recordings of people hold, but for what is read from a book.
constexpr const char* kPeopleGrammar =
    "#JSGF V1.0; grammar people; public <u> = (front | rear | side) (left | right | center) | "
    "(go | turn) (forward | backward | left | right) [<n> (meter | meters)] | <card> [of] [<card>] "
    "[of (clubs | diamonds | hearts | spades)]; <card> = ace | jack | queen | king | <n>; <n> = "
    "(one "
    "| two | three | four | five | six | seven | eight | nine | ten);";

// What callers of a hotel say, as a grammar and as sentences that it takes.
constexpr const char* kGrammar =
    "#JSGF V1.0; grammar desk; public <u> = [please] (how much is <room> | book <room> for <n> "
    "nights | is breakfast included | cancel my booking | what time is check out); <room> = [a] "
    "(single | double | suite) [room]; <n> = (one | two | three | four | five);";
constexpr const char* kCommands[] = {"how much is a double room",
                                     "please book a single room for three nights",
                                     "is breakfast included",
                                     "cancel my booking",
                                     "what time is check out",
                                     "book a suite for two nights",
                                     "how much is a single room please",
                                     "please cancel my booking",
                                     "book a double room for five nights",
                                     "how much is a suite"};
constexpr const char* kSentences[] = {
    "the double room has a wide bed and a small table near the window",
    "breakfast is served every morning from seven until ten on the first floor",
    "you can leave your heavy bags with the porter before the train goes",
    "our garden is open all day and the swimming pool closes after sunset",
    "the next train to the airport leaves from platform four at noon",
    "please tell me your name and the number of your room",
    "we have a table for two people near the fire this evening",
    "the doctor will call you back before the end of the day",
    "your order was sent on monday and will arrive on friday",
    "i am sorry that you had to wait so long for an answer"};

std::vector<std::string> WordsOf(std::string_view text) {
  std::vector<std::string> words;
  for (const std::string& word : Split(ToLower(text), ' '))
    if (!Trim(word).empty()) words.emplace_back(Trim(word));
  return words;
}

// Of this process and the children it has waited for.
double CpuNow() {
  double seconds = 0;
  for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage used = {};
    getrusage(who, &used);
    for (const timeval& time : {used.ru_utime, used.ru_stime})
      seconds += static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  }
  return seconds;
}

double Now() { return static_cast<double>(Clock::Real().MonotonicMicros()) / 1e6; }

[[noreturn]] void Die(const absl::Status& status) {
  fmt::print(stderr, "bench-engines: {}\n", Message(status));
  std::exit(1);
}

// ---- voices ----

struct Spoken {
  std::vector<int16_t> samples;
  int rate_hz = 0;
  double first_s = 0;
  double first_cpu_s = 0;  // of this process
  double cpu_s = 0;
  double length_s() const { return static_cast<double>(samples.size()) / rate_hz; }
};

Spoken Say(speech::TtsEngine& engine, const std::string& voice, const std::string& text) {
  speech::TtsConfig config;
  config.voice = voice;
  const double start = Now();
  const double cpu = CpuNow();
  const auto stream = engine.Open(config);
  if (!stream.ok()) Die(stream.status());
  Spoken spoken;
  spoken.rate_hz = (*stream)->sample_rate_hz();
  const absl::Status said = (*stream)->Speak(
      text,
      [&](std::span<const int16_t> samples, const auto&) {
        if (spoken.samples.empty()) {
          spoken.first_s = Now() - start;
          spoken.first_cpu_s = CpuNow() - cpu;
        }
        spoken.samples.insert(spoken.samples.end(), samples.begin(), samples.end());
        return true;
      },
      speech::Cancellation());
  if (!said.ok()) Die(said);
  spoken.cpu_s = CpuNow() - cpu;
  return spoken;
}

void MeasureVoice(Report& report, speech::TtsEngine& engine, const std::string& voice,
                  const std::string& name, int rounds) {
  std::vector<double> first_ms;
  std::vector<double> first_cpu_ms;
  double cpu = 0;
  double length = 0;
  Say(engine, voice, kSentences[0]);  // loads
  for (int round = 0; round < rounds; ++round) {
    for (const char* sentence : kSentences) {
      const Spoken spoken = Say(engine, voice, sentence);
      first_ms.push_back(spoken.first_s * 1e3);
      first_cpu_ms.push_back(spoken.first_cpu_s * 1e3);
      cpu += spoken.cpu_s;
      length += spoken.length_s();
    }
  }
  const int n = static_cast<int>(first_ms.size());
  report.Value(name + ".real_time_factor", "", cpu / length, n);
  report.Value(name + ".streams_per_core", "", length / cpu, n);
  report.Samples(name + ".first_audio", "ms", first_ms, "<= 20");
  report.Samples(name + ".first_audio_cpu", "ms", first_cpu_ms);  // this process alone
  // Streams that wait in the middle of a sentence hold all that a stream holds.
  constexpr int kStreams = 20;
  const int64_t before = MemoryOf(Tree(getpid())).pss_kib;
  std::promise<void> go_on;
  const std::shared_future<void> gate = go_on.get_future().share();
  std::atomic<int> inside = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kStreams; ++i) {
    threads.emplace_back([&] {
      speech::TtsConfig config;
      config.voice = voice;
      const auto stream = engine.Open(config);
      if (!stream.ok()) Die(stream.status());
      bool first = true;
      static_cast<void>((*stream)->Speak(
          kSentences[0],
          [&](std::span<const int16_t>, const auto&) {
            if (std::exchange(first, false)) {
              ++inside;
              gate.wait();
            }
            return true;
          },
          speech::Cancellation()));
    });
  }
  while (inside < kStreams) usleep(1000);
  const int64_t during = MemoryOf(Tree(getpid())).pss_kib;
  go_on.set_value();
  for (std::thread& thread : threads) thread.join();
  report.Value(name + ".memory_per_stream", "KiB", static_cast<double>(during - before) / kStreams,
               kStreams);
}

// ---- ears ----

struct Saying {
  std::vector<int16_t> samples;  // at kHearsHz
  std::string words;
};

struct Heard {
  std::string text;
  double first_s = -1;  // from the first sample to the first partial; < 0: none came
  double final_s = 0;   // from the end of the utterance
};

class Ear {
 public:
  Ear(speech::SttEngine& engine, const std::string& grammar) {
    speech::SttConfig config;
    config.grammar = grammar;
    config.interim_results = true;
    auto stream = engine.Open(config, [this](speech::SttEvent event) {
      MutexLock lock(&mutex_);
      if (std::holds_alternative<speech::SttPartial>(event)) {
        if (first_ < 0 && !std::get<speech::SttPartial>(event).transcript.text.empty())
          first_ = Now();
        return;
      }
      if (const auto* failed = std::get_if<speech::SttFailed>(&event)) Die(failed->status);
      const auto* final = std::get_if<speech::SttFinal>(&event);
      if (final == nullptr) return;
      text_ = final->transcript.text;
      done_ = true;
      changed_.SignalAll();
    });
    if (!stream.ok()) Die(stream.status());
    stream_ = *std::move(stream);
  }
  // At the pace of speech, or as fast as it is taken.
  Heard Hear(const std::vector<int16_t>& samples, bool paced) {
    {
      MutexLock lock(&mutex_);
      done_ = false;
      first_ = -1;
    }
    const double start = Now();
    for (size_t at = 0; at < samples.size(); at += kFrame) {
      const double due = start + static_cast<double>(at) / kHearsHz;
      if (paced && due > Now()) usleep(static_cast<useconds_t>((due - Now()) * 1e6));
      const absl::Status status = stream_->Write(
          std::span<const int16_t>(samples).subspan(at, std::min(kFrame, samples.size() - at)));
      if (!status.ok()) Die(status);
    }
    const double end = Now();
    if (const absl::Status status = stream_->EndUtterance(1); !status.ok()) Die(status);
    MutexLock lock(&mutex_);
    while (!done_) changed_.Wait(&mutex_);
    return {text_, first_ < 0 ? -1 : first_ - start, Now() - end};
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::string text_ ABSL_GUARDED_BY(mutex_);
  double first_ ABSL_GUARDED_BY(mutex_) = -1;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<speech::SttStream> stream_;
};

void MeasureEar(Report& report, engines::PocketsphinxEngine& engine, const std::string& grammar,
                const std::vector<Saying>& sayings, const std::string& name, size_t paced) {
  const auto open = [&] { return std::make_unique<Ear>(engine, grammar); };
  std::vector<double> open_ms;
  std::vector<double> first_ms;
  std::vector<double> final_ms;
  open();  // loads the models
  // Decoders that are still on their way out would be missing from the second reading.
  const auto settle = [] {
    for (size_t last = 0; last != Tree(getpid()).size(); usleep(100'000))
      last = Tree(getpid()).size();
  };
  double cpu = 0;
  double length = 0;
  int errors = 0;
  int words = 0;
  for (size_t i = 0; i < sayings.size(); ++i) {
    settle();
    const double start = Now();
    const auto ear = open();
    open_ms.push_back((Now() - start) * 1e3);
    const double before = CpuSeconds(Tree(getpid()));
    const Heard heard = ear->Hear(sayings[i].samples, i < paced);
    cpu += CpuSeconds(Tree(getpid())) - before;
    length += static_cast<double>(sayings[i].samples.size()) / kHearsHz;
    if (i < paced) {
      final_ms.push_back(heard.final_s * 1e3);
      if (heard.first_s >= 0) first_ms.push_back(heard.first_s * 1e3);
    }
    errors += testing::WordErrors(WordsOf(heard.text), WordsOf(sayings[i].words));
    words += static_cast<int>(WordsOf(sayings[i].words).size());
  }
  const int n = static_cast<int>(sayings.size());
  report.Samples(name + ".open", "ms", open_ms);
  report.Value(name + ".real_time_factor", "", cpu / length, n);
  report.Value(name + ".streams_per_core", "", length / cpu, n);
  if (!first_ms.empty()) report.Samples(name + ".first_partial", "ms", first_ms);
  if (!final_ms.empty()) report.Samples(name + ".final_after_end", "ms", final_ms);
  report.Value(name + ".word_error_rate", "%", 100.0 * errors / words, words);
}

void MeasureEarMemory(Report& report, engines::PocketsphinxEngine& engine,
                      const std::string& grammar, const std::vector<int16_t>& samples,
                      const std::string& name) {
  constexpr int kStreams = 8;
  const int64_t before = MemoryOf(Tree(getpid())).pss_kib;
  std::vector<std::unique_ptr<Ear>> ears;
  for (int i = 0; i < kStreams; ++i) {
    ears.push_back(std::make_unique<Ear>(engine, grammar));
    ears.back()->Hear(samples, false);
  }
  const int64_t during = MemoryOf(Tree(getpid())).pss_kib;
  report.Value(name + ".memory_per_stream", "KiB", static_cast<double>(during - before) / kStreams,
               kStreams);
}

std::vector<Saying> Synthesised(speech::TtsEngine& engine, std::span<const char* const> texts) {
  std::vector<Saying> sayings;
  for (const char* voice : {"slt", "rms", "kal16"}) {
    for (const char* text : texts) {
      const Spoken spoken = Say(engine, voice, text);
      auto samples = audio::Resample(spoken.samples, spoken.rate_hz, kHearsHz);
      if (!samples.ok()) Die(samples.status());
      samples->insert(samples->end(), kHearsHz / 2, 0);
      sayings.push_back({*std::move(samples), text});
    }
  }
  return sayings;
}

// Files and what is said in them.
using Recordings = std::vector<std::pair<std::string, std::string>>;

Recordings OfAlsa() {
  Recordings files;
  for (const char* where : {"Front_Center", "Front_Left", "Front_Right", "Rear_Center", "Rear_Left",
                            "Rear_Right", "Side_Left", "Side_Right"}) {
    std::string words = ToLower(where);
    std::replace(words.begin(), words.end(), '_', ' ');
    files.emplace_back(std::string(kAlsa) + where + ".wav", words);
  }
  return files;
}

Recordings OfFolder(const std::string& folder) {
  Recordings files;
  std::ifstream lines(folder + "/README.md");
  for (std::string line; std::getline(lines, line);) {
    const std::vector<std::string> cells = Split(line, '|');
    if (cells.size() < 3 || !Trim(cells[1]).ends_with(".wav")) continue;
    files.emplace_back(folder + "/" + std::string(Trim(cells[1])), Trim(cells[2]));
  }
  return files;
}

std::vector<Saying> Sayings(const Recordings& files) {
  std::vector<Saying> sayings;
  for (const auto& [path, words] : files) {
    auto samples = audio::ReadSpeech(path, kHearsHz);
    if (!samples.ok()) {
      fmt::print(stderr, "left out: {}\n", Message(samples.status()));
      continue;
    }
    samples->insert(samples->end(), kHearsHz / 2, 0);
    sayings.push_back({*std::move(samples), words});
  }
  return sayings;
}

}  // namespace
}  // namespace parley::bench

int main(int argc, char** argv) {
  using namespace parley;
  using namespace parley::bench;
  const char* given = std::getenv("PARLEY_TEST_AUDIO");
  std::string recordings = given == nullptr ? "" : given;
  const Options options = ParseOptions(argc, argv, [&](CLI::App& app) {
    app.add_option("--recordings", recordings, "Folder of recordings and README.md");
  });
  Report report("engines", options);
  engines::FliteEngine flite;
  const int rounds = options.quick ? 1 : 5;
  MeasureVoice(report, flite, "slt", "flite", rounds);
  engines::EspeakEngine espeak{engines::EspeakOptions()};
  MeasureVoice(report, espeak, "", "espeak", rounds);

  engines::PocketsphinxOptions ear;
  const char* bin = std::getenv("PARLEY_BIN_DIR");
  if (bin != nullptr) ear.decoder = std::string(bin) + "/parley-stt-decoder";
  engines::PocketsphinxEngine pocketsphinx(ear);
  std::vector<Saying> commands = Synthesised(flite, kCommands);
  std::vector<Saying> sentences = Synthesised(flite, kSentences);
  if (options.quick) {
    commands.resize(5);
    sentences.resize(5);
  }
  const size_t paced = options.quick ? 2 : 10;
  MeasureEar(report, pocketsphinx, kGrammar, commands, "pocketsphinx.grammar", paced);
  MeasureEarMemory(report, pocketsphinx, kGrammar, commands[0].samples, "pocketsphinx.grammar");
  MeasureEar(report, pocketsphinx, "", sentences, "pocketsphinx.free", paced);
  MeasureEarMemory(report, pocketsphinx, "", sentences[0].samples, "pocketsphinx.free");
  Recordings commanded = OfAlsa();
  Recordings read;
  for (const auto& one : OfFolder(recordings))
    (one.first.find("reading") == std::string::npos ? commanded : read).push_back(one);
  const std::vector<Saying> people = Sayings(commanded);
  const std::vector<Saying> readers = Sayings(read);
  if (!people.empty()) {
    MeasureEar(report, pocketsphinx, kPeopleGrammar, people, "pocketsphinx.grammar.people", 0);
    MeasureEar(report, pocketsphinx, "", people, "pocketsphinx.free.people", 0);
  }
  if (!readers.empty())
    MeasureEar(report, pocketsphinx, "", readers, "pocketsphinx.free.readers", 0);
  return report.Finish() ? 0 : 1;
}
