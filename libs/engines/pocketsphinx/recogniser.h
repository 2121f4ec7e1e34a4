#pragma once
// pocketsphinx behind a small face. Runs only in decoder processes: one thread, no gRPC.
#include <absl/status/statusor.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "speech/stt.h"

namespace parley::engines {

struct ModelPaths {
  std::string acoustic;    // folder
  std::string dictionary;  // file
  std::string language;    // file; empty: only grammars
};

// Loads models once; forked copies share them. Not thread-safe; its errors go through process-wide
// hooks of the library, so a process has one.
class Recogniser {
 public:
  // Loads the models (0.1 s, 0.4 s with a language model).
  //   Unavailable  a model is missing or broken; the text names the paths
  static absl::StatusOr<std::unique_ptr<Recogniser>> Load(const ModelPaths& paths);
  ~Recogniser();
  Recogniser(const Recogniser&) = delete;
  Recogniser& operator=(const Recogniser&) = delete;

  // Exactly one of these, once, before audio.
  //   InvalidArgument  (reason GRAMMAR_REFUSED) syntax, no public rule, an import, words that the
  //                    dictionary lacks: named
  absl::Status UseGrammar(const std::string& grammar);
  // Free speech. `phrases` are made more likely than the language model alone would have them.
  absl::Status UseLanguageModel(const std::vector<std::string>& phrases);

  // Mono, 16 kHz. Begins an utterance where none is under way.
  absl::Status Process(std::span<const int16_t> samples);
  // What was heard in this utterance so far.
  std::string Partial();
  // Ends the utterance. Text is empty when nothing was understood.
  absl::StatusOr<speech::SttTranscript> End();
  void Reset();

 private:
  struct Impl;
  Recogniser();
  std::unique_ptr<Impl> impl_;
};

}  // namespace parley::engines
