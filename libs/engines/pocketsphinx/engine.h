#pragma once
// The embedded recogniser: pocketsphinx in processes of its own. English; commands and grammars
// reliably, dictation roughly.
#include <sys/types.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "engines/pocketsphinx/program.h"
#include "event/loop.h"
#include "speech/stt.h"

namespace parley::engines {

struct PocketsphinxOptions {
  std::string decoder;  // parley-stt-decoder; empty = beside this program
  std::string model_dir = "/usr/share/pocketsphinx/model/en-us";
  int max_streams = 64;                    // decoder processes at a time
  int64_t memory_limit_bytes = 256 << 20;  // of one decoder, beyond the models
  absl::Duration compile_cpu = absl::Seconds(5);
  absl::Duration open_timeout = absl::Seconds(10);
};

// A program with the acoustic model and the dictionary forks a decoder for each stream with a
// grammar; a second one, with the language model too, starts when somebody first asks for free
// speech. Grammars are compiled and decoded in the decoder, under limits of memory and CPU time.
class PocketsphinxEngine : public speech::SttEngine {
 public:
  explicit PocketsphinxEngine(PocketsphinxOptions options);
  ~PocketsphinxEngine() override;

  // Loads the models of grammar streams ahead of the first. Blocks.
  absl::Status Load();
  bool loaded() const { return grammars_.loaded(); }
  pid_t program_pid() const { return grammars_.pid(); }  // 0 when it is not running

  // The process behind a stream of this engine.
  static pid_t DecoderPidForTest(const speech::SttStream& stream);

  const speech::SttEngineInfo& info() const override { return info_; }
  // As SttEngine; also InvalidArgument (reason GRAMMAR_REFUSED), ResourceExhausted (reason
  // TOO_MANY_STREAMS). Options: none.
  absl::StatusOr<std::unique_ptr<speech::SttStream>> Open(const speech::SttConfig& config,
                                                          speech::SttSink sink) override;

 private:
  class Stream;
  friend class Stream;
  absl::Status Check(const speech::SttConfig& config) const;

  const PocketsphinxOptions options_;
  speech::SttEngineInfo info_;
  event::Loop loop_;
  DecoderProgram grammars_;
  DecoderProgram free_speech_;
  std::atomic<int> streams_{0};
  std::atomic<uint64_t> next_stream_{1};
  std::thread thread_;  // last: runs loop_
};

}  // namespace parley::engines
