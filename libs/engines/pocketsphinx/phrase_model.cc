#include "engines/pocketsphinx/phrase_model.h"

#include <ps_search.h>
#include <sphinxbase/ngram_model.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "base/status.h"
#include "base/strings.h"

namespace parley::engines {
namespace {

constexpr float32 kPhraseWeight = 0.5F;  // how much is expected to come from the phrases
constexpr double kBackoff = 0.4;         // probability left for what the phrases do not have

std::string Lowered(std::string_view phrase) {
  std::string out;
  for (const std::string& word : Split(ToLower(phrase), ' ')) {
    if (!word.empty()) out += out.empty() ? word : " " + word;
  }
  return out;
}

}  // namespace

std::string PhraseArpa(const std::vector<std::string>& phrases) {
  // counts[n][history][word]
  std::map<std::string, double> unigrams;
  std::map<std::string, std::map<std::string, double>> bigrams;
  double total = 0;
  for (const std::string& phrase : phrases) {
    std::string before = "<s>";
    std::vector<std::string> words = Split(phrase, ' ');
    words.emplace_back("</s>");
    for (const std::string& word : words) {
      unigrams[word] += 1;
      bigrams[before][word] += 1;
      total += 1;
      before = word;
    }
  }
  size_t pairs = 0;
  for (const auto& [history, next] : bigrams) pairs += next.size();
  std::string arpa =
      fmt::format("\\data\\\nngram 1={}\nngram 2={}\n\n\\1-grams:\n", unigrams.size() + 1, pairs);
  const double log_backoff = std::log10(kBackoff);
  arpa += fmt::format("-99.0 <s> {:.4f}\n", log_backoff);
  for (const auto& [word, count] : unigrams)
    arpa += fmt::format("{:.4f} {} {:.4f}\n", std::log10(count / total), word, log_backoff);
  arpa += "\n\\2-grams:\n";
  for (const auto& [history, next] : bigrams) {
    double sum = 0;
    for (const auto& [word, count] : next) sum += count;
    for (const auto& [word, count] : next) {
      arpa +=
          fmt::format("{:.4f} {} {}\n", std::log10((1 - kBackoff) * count / sum), history, word);
    }
  }
  return arpa + "\n\\end\\\n";
}

absl::Status AddPhraseModel(ps_decoder_t* decoder, cmd_ln_t* config, const char* base,
                            const char* name, const std::vector<std::string>& phrases) {
  std::vector<std::string> spoken;
  for (const std::string& phrase : phrases) {
    spoken.push_back(Lowered(phrase));
    if (spoken.back().empty()) return InvalidArgument("a phrase hint is empty");
    for (const std::string& word : Split(spoken.back(), ' ')) {
      char* pronunciation = ps_lookup_word(decoder, word.c_str());
      if (pronunciation == nullptr) {
        return InvalidArgument("the dictionary has no pronunciation for \"{}\" (phrase \"{}\")",
                               word, phrase);
      }
      free(pronunciation);
    }
  }
  // The library reads models from files only.
  const std::string arpa = PhraseArpa(spoken);
  const int fd = memfd_create("phrases", MFD_CLOEXEC);
  if (fd < 0 || write(fd, arpa.data(), arpa.size()) != static_cast<ssize_t>(arpa.size())) {
    if (fd >= 0) close(fd);
    return Unavailable("no memory for the phrases");
  }
  ngram_model_t* hints = ngram_model_read(config, fmt::format("/proc/self/fd/{}", fd).c_str(),
                                          NGRAM_ARPA, ps_get_logmath(decoder));
  close(fd);
  ngram_model_t* model = ps_get_lm(decoder, base);
  if (hints == nullptr || model == nullptr)
    return Unavailable("the phrase hints do not make a model");
  ngram_model_t* models[] = {model, hints};
  char model_name[] = "model";
  char hints_name[] = "hints";
  char* names[] = {model_name, hints_name};
  const float32 weights[] = {1 - kPhraseWeight, kPhraseWeight};
  ngram_model_t* mixed = ngram_model_set_init(config, models, names, nullptr, 2);
  const char* mixed_names[] = {model_name, hints_name};
  if (mixed == nullptr || ngram_model_set_interp(mixed, mixed_names, weights) == nullptr ||
      ps_set_lm(decoder, name, mixed) != 0) {
    return Unavailable("the phrase hints do not mix with the language model");
  }
  return absl::OkStatus();
}

}  // namespace parley::engines
