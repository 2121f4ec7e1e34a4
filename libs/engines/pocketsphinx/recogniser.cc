#include "engines/pocketsphinx/recogniser.h"

#include <pocketsphinx.h>
#include <ps_search.h>
#include <sphinxbase/err.h>
#include <sphinxbase/jsgf.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <set>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "engines/pocketsphinx/phrase_model.h"

namespace parley::engines {
namespace {

constexpr const char* kGrammarSearch = "grammar";
constexpr const char* kModelSearch = "model";
constexpr const char* kHintedSearch = "hinted";
constexpr size_t kMaxNamedWords = 10;
constexpr int kFramesPerSecond = 100;  // the model's; ps_seg_frames counts them

// The first error the library reported since it was last cleared: its return values only say "no".
std::string& LibraryError() {
  static std::string error;
  return error;
}

// The C library wants a C callback.
extern "C" void KeepFirstError(void* /*user*/, err_lvl_t level, const char* format, ...) {
  if (level < ERR_ERROR || !LibraryError().empty()) return;
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  LibraryError() = std::string(Trim(text));
  std::string& text_kept = LibraryError();
  // The library puts its own file and line in front (ERROR: "jsgf.c", line 12: …) and a line number
  // that it never set into syntax errors.
  const size_t line = text_kept.find("\", line ");
  const size_t colon = text_kept.find(": ", line);
  if (line != std::string::npos && colon != std::string::npos) text_kept.erase(0, colon + 2);
  const size_t number = text_kept.find(" at line ");
  const size_t token = text_kept.find(" current token ");
  if (number != std::string::npos && token != std::string::npos && number < token)
    text_kept.replace(number, token + std::string_view(" current token").size() - number, " near");
}

absl::Status GrammarRefused(std::string_view why) {
  return WithReason(InvalidArgument("grammar refused: {}", why), "GRAMMAR_REFUSED");
}

// Imports read files; there is nothing of the caller's to read here.
bool HasImport(std::string_view grammar) {
  constexpr std::string_view kImport = "import";
  for (size_t at = grammar.find(kImport); at != std::string_view::npos;
       at = grammar.find(kImport, at + 1)) {
    const std::string_view rest = Trim(grammar.substr(at + kImport.size()));
    if (!rest.empty() && rest[0] == '<') return true;
  }
  return false;
}

// Words as people read them: "ten(2)" is another way to say "ten"; fillers are nothing.
std::string PlainWord(std::string_view word) {
  if (word.empty() || word[0] == '<' || word[0] == '[' || word[0] == '+' || word[0] == '(')
    return {};
  const size_t variant = word.find('(');
  return std::string(word.substr(0, variant));
}

struct GrammarDeleter {
  void operator()(jsgf_t* grammar) const { jsgf_grammar_free(grammar); }
};
struct FsgDeleter {
  void operator()(fsg_model_t* fsg) const { fsg_model_free(fsg); }
};

}  // namespace

struct Recogniser::Impl {
  ~Impl() {
    if (decoder != nullptr) ps_free(decoder);
    if (config != nullptr) cmd_ln_free_r(config);
  }
  // Sorted, each once.
  std::set<std::string> Missing(const fsg_model_t* fsg) const {
    std::set<std::string> missing;
    for (int i = 0; i < fsg_model_n_word(fsg); ++i) {
      const char* word = fsg_model_word_str(fsg, i);
      char* pronunciation = ps_lookup_word(decoder, word);
      if (pronunciation == nullptr) missing.insert(word);
      free(pronunciation);
    }
    return missing;
  }

  cmd_ln_t* config = nullptr;
  ps_decoder_t* decoder = nullptr;
  bool in_utterance = false;
};

Recogniser::Recogniser() : impl_(std::make_unique<Impl>()) {}
Recogniser::~Recogniser() = default;

absl::StatusOr<std::unique_ptr<Recogniser>> Recogniser::Load(const ModelPaths& paths) {
  err_set_logfp(nullptr);
  err_set_callback(&KeepFirstError, nullptr);
  for (const std::string& path : {paths.acoustic, paths.dictionary, paths.language}) {
    if (!path.empty() && access(path.c_str(), R_OK) != 0) {
      return Unavailable(
          "the speech model {} cannot be read: install the package pocketsphinx-en-us, or name "
          "another model",
          path);
    }
  }
  std::unique_ptr<Recogniser> recogniser(new Recogniser);
  Impl& impl = *recogniser->impl_;
  // The second and third passes cost 70 to 270 ms at the end of an utterance and gain nothing.
  impl.config = cmd_ln_init(nullptr, ps_args(), TRUE, "-hmm", paths.acoustic.c_str(), "-dict",
                            paths.dictionary.c_str(), "-fwdflat", "no", "-bestpath", "no", nullptr);
  if (impl.config != nullptr && paths.language.empty()) {
    // Grammars have no model that makes extra words unlikely: the library's defaults hear a short
    // word in every breath before the first one.
    cmd_ln_set_float_r(impl.config, "-silprob", 0.5);
    cmd_ln_set_float_r(impl.config, "-wip", 0.01);
  }
  if (impl.config != nullptr) impl.decoder = ps_init(impl.config);
  if (impl.decoder == nullptr)
    return Unavailable("the speech model in {} does not load: {}", paths.acoustic, LibraryError());
  if (!paths.language.empty() &&
      ps_set_lm_file(impl.decoder, kModelSearch, paths.language.c_str()) != 0) {
    return Unavailable("the language model {} does not load: {}", paths.language, LibraryError());
  }
  return recogniser;
}

absl::Status Recogniser::UseGrammar(const std::string& grammar) {
  if (HasImport(grammar)) return GrammarRefused("it imports another one; put all rules into it");
  LibraryError().clear();
  const std::unique_ptr<jsgf_t, GrammarDeleter> parsed(jsgf_parse_string(grammar.c_str(), nullptr));
  if (parsed == nullptr) {
    return GrammarRefused(LibraryError().empty() ? "it is not JSGF (#JSGF V1.0; grammar name; …)"
                                                 : LibraryError());
  }
  jsgf_rule_t* rule = jsgf_get_public_rule(parsed.get());
  if (rule == nullptr) return GrammarRefused("it has no public rule (public <name> = …;)");
  const auto weight = static_cast<float32>(cmd_ln_float_r(impl_->config, "-lw"));
  const std::unique_ptr<fsg_model_t, FsgDeleter> fsg(
      jsgf_build_fsg(parsed.get(), rule, ps_get_logmath(impl_->decoder), weight));
  if (fsg == nullptr) {
    return GrammarRefused(LibraryError().empty() ? "its rules do not expand" : LibraryError());
  }
  const std::set<std::string> missing = impl_->Missing(fsg.get());
  if (!missing.empty()) {
    std::string names;
    size_t named = 0;
    for (const std::string& word : missing) {
      if (named++ == kMaxNamedWords) break;
      names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", word);
    }
    if (missing.size() > kMaxNamedWords)
      names += fmt::format(" and {} more", missing.size() - kMaxNamedWords);
    return GrammarRefused(fmt::format(
        "the dictionary has no pronunciation for {}; use words that it knows (numbers and symbols "
        "written out)",
        names));
  }
  if (ps_set_fsg(impl_->decoder, kGrammarSearch, fsg.get()) != 0 ||
      ps_set_search(impl_->decoder, kGrammarSearch) != 0) {
    return GrammarRefused(LibraryError());
  }
  ps_start_stream(impl_->decoder);
  return absl::OkStatus();
}

absl::Status Recogniser::UseLanguageModel(const std::vector<std::string>& phrases) {
  const char* search = kModelSearch;
  LibraryError().clear();
  if (!phrases.empty()) {
    search = kHintedSearch;
    PARLEY_RETURN_IF_ERROR(
        AddPhraseModel(impl_->decoder, impl_->config, kModelSearch, kHintedSearch, phrases));
  }
  if (ps_set_search(impl_->decoder, search) != 0)
    return Unavailable("this decoder has no language model");
  ps_start_stream(impl_->decoder);
  return absl::OkStatus();
}

absl::Status Recogniser::Process(std::span<const int16_t> samples) {
  if (!impl_->in_utterance) {
    if (ps_start_utt(impl_->decoder) != 0) return Unavailable("the recogniser does not start");
    impl_->in_utterance = true;
  }
  if (ps_process_raw(impl_->decoder, samples.data(), samples.size(), FALSE, FALSE) < 0)
    return Unavailable("the recogniser failed: {}", LibraryError());
  return absl::OkStatus();
}

std::string Recogniser::Partial() {
  if (!impl_->in_utterance) return {};
  int32 score = 0;
  const char* text = ps_get_hyp(impl_->decoder, &score);
  return text == nullptr ? std::string() : std::string(text);
}

absl::StatusOr<speech::SttTranscript> Recogniser::End() {
  speech::SttTranscript transcript;
  if (!impl_->in_utterance) return transcript;
  impl_->in_utterance = false;
  if (ps_end_utt(impl_->decoder) != 0)
    return Unavailable("the recogniser failed: {}", LibraryError());
  int32 score = 0;
  const char* text = ps_get_hyp(impl_->decoder, &score);
  // No hypothesis: nothing was said, or it does not fit the grammar.
  if (text == nullptr) return transcript;
  transcript.text = text;
  for (ps_seg_t* segment = ps_seg_iter(impl_->decoder); segment != nullptr;
       segment = ps_seg_next(segment)) {
    speech::WordTime word;
    word.word = PlainWord(ps_seg_word(segment));
    if (word.word.empty()) continue;
    int first = 0;
    int last = 0;
    ps_seg_frames(segment, &first, &last);
    word.start_ms = first * 1000 / kFramesPerSecond;
    word.end_ms = (last + 1) * 1000 / kFramesPerSecond;
    transcript.words.push_back(std::move(word));
  }
  return transcript;
}

void Recogniser::Reset() {
  if (!impl_->in_utterance) return;
  impl_->in_utterance = false;
  ps_end_utt(impl_->decoder);
}

}  // namespace parley::engines
